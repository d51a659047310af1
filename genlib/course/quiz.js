// A quiz. Python wrote it as a list: each question with its options or a hint, and a folded answer with the reason of
// every option. This makes forms of the questions. What it says to a learner it copies from hint and answer, which stay
// in the page out of sight, so that whatever typesets formulas there has typeset them too.
(() => {
  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
    node.append(...children);
    return node;
  }

  // A number from 0.25, .25, 0,25, 1/4, 25 %, 2.5e-1 or 1 000. NaN: it is none. Null: its comma may group digits.
  function parse(text) {
    const plain = text.trim().replace(/[\u2212\u2013]/g, "-").replace(/\s*([/%])\s*/g, "$1")
      .replace(/(\d)\s(?=\d{3}(?!\d))/g, "$1");
    if (/(^|[-+/])[1-9]\d{0,2},\d{3}(?!\d)/.test(plain)) return null;
    const decimal = "([-+]?(?:\\d+[.,]?\\d*|[.,]\\d+)(?:e[-+]?\\d+)?)";
    const match = new RegExp(`^${decimal}(?:/${decimal})?(%?)$`, "i").exec(plain);
    if (!match) return NaN;
    const [top, bottom] = [match[1], match[2] ?? "1"].map((part) => Number(part.replace(",", ".")));
    return top / bottom / (match[3] ? 100 : 1);
  }

  // Each kind of question has its fields, reads and writes an answer, and judges one: {right, says}, or {ask} when it
  // is none yet. `write` may throw at an answer that was kept by another version of the question.
  const KINDS = { one: choice, several: choice, number, order };

  function choice({ li, shown, reasons }) {
    const several = li.dataset.kind === "several", all = [...shown.keys()];
    const boxes = all.map(() => make("input", { type: several ? "checkbox" : "radio", name: "choice" }));
    const right = (i) => "right" in shown[i].dataset;
    shown.forEach((option, i) => option.replaceChildren(make("label", {}, boxes[i], ...option.childNodes)));
    return {
      fields: make("ul", { class: "options" }, ...shown),
      read: () => all.filter((i) => boxes[i].checked),
      write: (answer) => boxes.forEach((box, i) => { box.checked = answer.includes(i); }),
      judge(answer) {
        const wrong = answer.filter((i) => !right(i)), complete = all.every((i) => !right(i) || answer.includes(i));
        if (!answer.length) return { ask: several ? "Tick at least one option." : "Choose an option first." };
        if (!wrong.length && !complete) return { says: ["Not yet: what you ticked holds, but not only that."] };
        return { right: !wrong.length, says: (wrong.length ? wrong : answer).map((i) => reasons[i]) };
      },
    };
  }

  function number({ li, hint, reasons }) {
    const box = make("input", { type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
    const near = (x, value) => Math.abs(x - value) <= Number(li.dataset.within) + 1e-9 * Math.abs(value);  // rounding
    return {
      fields: make("label", { class: "typed" }, "Your answer ", box),
      read: () => box.value.trim(),
      write: (answer) => { box.value = answer; },
      judge(answer) {
        const x = parse(answer);
        if (x === null) return { ask: "Does the comma group digits or mark decimals? Write 1000, or 1.000." };
        if (!Number.isFinite(x)) return { ask: "Write a number, such as 0.25, 1/4 or 2.5e-1." };
        const hit = reasons.find((row) => near(x, Number(row.dataset.value)));
        return { right: hit && "right" in hit.dataset, says: hit ? [hit] : ["Not yet. A hint:", hint] };
      },
    };
  }

  function order({ shown, reasons, status }) {
    const place = (row) => Number(row.dataset.place), places = shown.map(place);
    const name = new Map(shown.map((row) => [row, row.textContent.trim().replace(/\\[()]/g, "")]));
    const list = make("ol", { class: "options" }, ...shown), rows = () => [...list.children];
    // The first row cannot go up, nor the last one down. Their buttons stay, or the keyboard would lose its place.
    const mark = () => rows().forEach((row, i) => row.querySelectorAll("button").forEach((button, down) =>
      button.setAttribute("aria-disabled", String(i === (down ? shown.length - 1 : 0)))));
    function move(row, by, button) {
      const at = rows().indexOf(row) + by, other = rows()[at];
      if (!other) return;
      list.insertBefore(row, by < 0 ? other : other.nextSibling);
      mark();
      button.focus();  // lost when its row moved
      button.dispatchEvent(new Event("input", { bubbles: true }));
      status.textContent = `${name.get(row)}: now ${at + 1} of ${shown.length}.`;
    }
    shown.forEach((row) => {
      const buttons = [["\u2191", "up", -1], ["\u2193", "down", 1]].map(([sign, word, by]) => {
        const button = make("button", { type: "button", "aria-label": `Move ${word}: ${name.get(row)}` }, sign);
        button.addEventListener("click", () => move(row, by, button));
        return button;
      });
      row.append(...buttons);
    });
    return {
      fields: list,
      read: () => rows().map(place),
      write(answer) {
        if (`${[...answer].sort()}` !== `${[...places].sort()}`) throw new Error("not an order of these items");
        list.append(...answer.map((p) => shown[places.indexOf(p)]));
        mark();
      },
      judge(answer) {
        const at = answer.findIndex((p, i) => p !== i + 1);
        if (at < 0) return { right: true, says: ["All are in their places."] };
        const early = shown[places.indexOf(answer[at])].firstElementChild;
        return { says: ["Not yet: \u201c", early, "\u201d is too early. Before it:", reasons[at]] };
      },
    };
  }

  // What is said: a text, or a copy of a row of the answer, of the hint or of an option.
  function copy(said) {
    if (typeof said === "string") return said;
    const parts = [...said.cloneNode(true).childNodes].filter((part) => part.nodeName !== "SUMMARY");
    return make(said.matches("span") ? "em" : "p", {}, ...parts);
  }

  function question(li, quiz, changed) {
    const [ask, second, answer] = li.children, shown = [...second.querySelectorAll("li")];
    const key = `quiz:${quiz}/${li.dataset.id}`, status = make("div", { class: "says", role: "status" });
    const item = { li, shown, status, hint: second, reasons: [...answer.querySelectorAll("li")] };
    const kind = KINDS[li.dataset.kind](item), empty = kind.read();
    const show = make("button", { type: "button", class: "quiet" }, "Show the answer");
    const form = make("form", {},
      make("fieldset", {}, make("legend", {}, ...ask.childNodes), kind.fields),
      make("div", { class: "acts" }, make("button", {}, "Check"), show), status);
    let record = null;

    function say(state, ...said) {
      li.dataset.state = state;
      status.replaceChildren(...said.map(copy));
      if (state === "right") unfold(false);
      show.hidden = !(record?.tries > 1) || !answer.matches(".store");
    }
    function unfold(open) {  // unless it is
      if (answer.matches(".store")) [answer.className, answer.open] = ["", open];
    }
    function judge() {
      const given = kind.read(), { ask: request, right, says } = kind.judge(given);
      if (request) return say("", request);
      const again = JSON.stringify(given) === JSON.stringify(record?.answer);
      if (right || !record?.right)  // what was right stays so when other options are tried for their reasons
        record = { right: Boolean(right), answer: given, tries: (record?.tries ?? 0) + (again ? 0 : 1) };
      return say(right ? "right" : "wrong", ...says);
    }
    function reset() {
      record = null;
      kind.write(empty);
      li.querySelectorAll(":scope > details").forEach((part) => {
        part.classList.add("store");
        part.open = true;  // or its formulas would have no size
      });
      say("");
    }
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      judge();
      if (li.dataset.state) window.courseProgress?.set(key, record);
      changed();
    });
    form.addEventListener("input", () => say(""));  // what was said is about another answer
    show.addEventListener("click", () => {
      unfold(true);
      show.hidden = true;
      answer.querySelector("summary").focus();
    });
    li.replaceChildren(form, ...[second, answer].filter((part) => part.matches("details")));
    reset();
    try {
      const kept = window.courseProgress.get(key);
      kind.write(kept.answer);
      record = { answer: kind.read(), tries: Number(kept.tries) || 1 };
      judge();
    } catch { /* nothing kept, or by another version of the question, or damaged */ }
    if (!li.dataset.state) reset();
    return {
      right: () => Boolean(record?.right), begun: () => record !== null,
      forget() { reset(); window.courseProgress?.remove(key); },
      drop() { if (record && !window.courseProgress.get(key)) reset(); },  // removed on another page
    };
  }

  function start(root) {
    const again = make("button", { type: "button", class: "quiet" }, "Start again");
    const score = make("span", { role: "status" }), items = [...root.querySelectorAll(":scope > ol > li")];
    function count() {
      const text = `${questions.filter((q) => q.right()).length} of ${questions.length} right`;
      if (score.textContent !== text) score.textContent = text;
      again.hidden = !questions.some((q) => q.begun());
    }
    root.classList.add("live");
    root.addEventListener("keydown", (event) => event.stopPropagation());  // letters and arrows command JupyterLab
    const questions = items.map((li) => question(li, root.dataset.quiz, count));
    again.addEventListener("click", () => {
      questions.forEach((q) => q.forget());
      count();
      root.querySelector("input, button").focus();
    });
    root.append(make("div", { class: "acts score" }, score, again));
    window.courseProgress?.set(`quiz:${root.dataset.quiz}`, { total: questions.length });
    window.courseProgress?.subscribe(() => { questions.forEach((q) => q.drop()); count(); });
    count();
  }

  document.querySelectorAll(".genlib-quiz:not(.live)").forEach(start);
  if (window.google?.colab && !window.MathJax) {  // its outputs are frames without MathJax
    const host = "https://www.gstatic.com/external_hosted/mathjax/latest/MathJax.js";
    document.head.append(make("script", { src: `${host}?config=TeX-AMS_HTML-full,Safe` }));
  }
})();
