// The reader's progress: what is read, answered and finished. It stays in this browser. It is shown by marks in the
// table of contents and in the picture of the study paths, at the end of each page, and on the page "Your progress".
// The build puts what there is to do before this script, as window.courseStudy.
(function () {
  const VERSION = 1, LARGEST = 1e6; // characters
  const root = new URL("..", document.currentScript.src).pathname; // two books on one host must not mix
  const KEY = `course-progress:${root}`, ASIDE = `${KEY}:damaged`;
  const study = window.courseStudy || { pages: [], paths: [] };

  // --- Storage: one JSON object. It may be switched off, full, or damaged, and no page may fail for that. ---

  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const isCount = (value) => Number.isInteger(value) && value >= 0 && value < 1e6;
  const isDate = (value) => /^\d{4}-\d\d-\d\d$/.test(value) && !isNaN(Date.parse(value));
  const FORMS = [
    [/^quiz:[\w.-]+$/, (value) => isCount(value.total)],
    [/^quiz:[\w.-]+\/[\w.-]+$/, (value) => typeof value.right === "boolean" && isCount(value.tries)],
    [/^read:[\w./-]+$/, (value) => isDate(value.on)],
    [/^lab:[\w-]+$/, (value) => isDate(value.on) && isCount(value.gaps)],
    [/^path$/, (value) => typeof value.name === "string"],
  ];

  function valid(key, value) {
    const form = FORMS.find(([pattern]) => pattern.test(key));
    return Boolean(form && key.length < 200 && isObject(value) && form[1](value) && JSON.stringify(value).length < 5000);
  }

  // Everything in a text that is right, and what is wrong with the rest.
  function parse(text) {
    const entries = new Map();
    let fault = "";
    try {
      const data = JSON.parse(text.length < LARGEST ? text : "");
      if (!isObject(data) || !isObject(data.entries)) fault = "it holds no progress";
      else if (data.version !== VERSION) fault = `it is of version ${JSON.stringify(data.version)}, expected ${VERSION}`;
      else
        for (const [key, value] of Object.entries(data.entries)) {
          if (valid(key, value)) entries.set(key, value);
          else fault = `its entry "${key.slice(0, 50)}" is not understood`;
        }
    } catch {
      fault = text.length < LARGEST ? "it is no JSON" : "it is too long";
    }
    return { entries, fault };
  }

  const write = (entries) => JSON.stringify({ version: VERSION, entries: Object.fromEntries(entries) }, null, 1);
  const unsaved = new Map(); // what storage would not take; undefined for what was removed
  const listeners = new Set();
  let stuck = false; // damaged data that could not be moved away, and must not be written over

  function load() {
    let text = null;
    try {
      text = localStorage.getItem(KEY);
    } catch {} // switched off
    const { entries, fault } = text === null ? { entries: new Map() } : parse(text);
    if (fault && !stuck) setAside(text, entries);
    for (const [key, value] of unsaved) {
      if (value === undefined) entries.delete(key);
      else entries.set(key, structuredClone(value));
    }
    return entries;
  }

  function setAside(text, entries) {
    try {
      localStorage.removeItem(KEY); // first, since a full storage has no room for both
      localStorage.setItem(ASIDE, [localStorage.getItem(ASIDE), text].filter(Boolean).join("\n"));
      if (entries.size) localStorage.setItem(KEY, write(entries));
    } catch {
      stuck = true;
      try {
        localStorage.setItem(KEY, text);
      } catch {}
    }
  }

  // Reads anew before it writes, so that nothing is lost that another tab has written since. Yet browsers give each
  // tab a copy of the storage, which lags: a tab that had not seen what this one wrote may write over it.
  const recent = new Map();

  function change(edit) {
    const before = load(), after = new Map(before);
    edit(after);
    try {
      if (stuck) throw new Error("damaged data are in the way");
      localStorage.setItem(KEY, write(after));
      unsaved.clear();
      for (const [key, value] of after) if (before.get(key) !== value) recent.set(key, [Date.now(), value]);
      for (const key of before.keys()) if (!after.has(key)) recent.delete(key);
    } catch {
      for (const key of new Set([...before.keys(), ...after.keys()]))
        if (before.get(key) !== after.get(key)) unsaved.set(key, after.get(key));
    }
    tell();
  }

  const tell = () =>
    listeners.forEach((listener) => {
      try { listener(); } catch (error) { console.error(error); }
    });

  window.addEventListener("storage", (event) => {
    const now = load(), lost = [...recent].filter(([key, [at]]) => Date.now() - at < 2000 && !now.has(key));
    if (event.key === KEY && event.newValue && lost.length)
      change((entries) => lost.forEach(([key, [, value]]) => entries.set(key, value)));
    else if (event.key === KEY || event.key === null) tell(); // null: another tab has cleared everything
  });
  window.addEventListener("pageshow", (event) => event.persisted && tell()); // back again: other pages may have written

  window.courseProgress = {
    get: (key) => load().get(key) ?? null,
    set(key, value) {
      try {
        value = JSON.parse(JSON.stringify(value));
      } catch {
        return false;
      }
      if (typeof key !== "string" || !valid(key, value)) return false;
      if (JSON.stringify(load().get(key)) !== JSON.stringify(value)) change((entries) => entries.set(key, value));
      return true;
    },
    remove: (key) => change((entries) => entries.delete(key)),
    entries: () => Object.fromEntries(load()),
    subscribe(listener) {
      if (typeof listener === "function") listeners.add(listener);
      return () => listeners.delete(listener);
    },
    accept,
  };

  // --- What the entries say of a page ---

  // A chapter is done when it is read and its quiz is answered rightly; a lab when the code for all gaps was accepted.
  function stateOf(page, entries) {
    if (page.lab) {
      const gaps = Math.min(entries.get(`lab:${page.lab}`)?.gaps ?? 0, page.gaps);
      return { state: gaps === page.gaps ? "done" : gaps ? "begun" : "", words: `${gaps} of ${page.gaps} gaps` };
    }
    const read = entries.get(`read:${page.page}`);
    const answers = page.quiz.map((id) => entries.get(`quiz:${page.page.split("/").pop()}/${id}`));
    const right = answers.filter((answer) => answer?.right).length;
    const words = [read ? `read on ${spoken(read.on)}` : "not read"];
    if (page.quiz.length) words.push(`quiz: ${right} of ${page.quiz.length} right`);
    const done = read && right === page.quiz.length;
    return { state: done ? "done" : read || answers.some(Boolean) ? "begun" : "", words: words.join(", ") };
  }

  const today = () => new Date(Date.now() - 60000 * new Date().getTimezoneOffset()).toISOString().slice(0, 10);
  const spoken = (date) =>
    new Date(`${date}T12:00`).toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" });

  // --- The code of a lab: its name, the number of gaps passed, and a checksum as in genlib/course/checks.py ---

  function checksum(text) {
    let hash = 2166136261; // FNV-1a, 32 bits; its last 20 are four characters that are hard to confuse
    for (const letter of new TextEncoder().encode(text)) hash = Math.imul(hash ^ letter, 16777619);
    return [15, 10, 5, 0].map((shift) => "0123456789abcdefghjkmnpqrstvwxyz"[(hash >>> shift) & 31]).join("");
  }

  function accept(text) {
    const line = /[a-z-]+\W*\d+\W*\w{4}\W*$/i.exec(text)?.[0] ?? String(text); // the whole line may be pasted
    const typed = line.toLowerCase().replace(/[^a-z0-9]/g, "");
    for (const page of study.pages.filter((each) => each.lab)) {
      const name = page.lab.replace(/[^a-z0-9]/g, "");
      const [, number, check] = (typed.startsWith(name) && /^(\d+)(\w{4})$/.exec(typed.slice(name.length))) || [];
      if (!number || check.replace(/o/g, "0").replace(/[il]/g, "1") !== checksum(`${page.lab}-${number}`)) continue;
      const gaps = Number(number);
      if (gaps > page.gaps) return `This code is of another version of the lab. Run the lab's last cell again.`;
      const before = load().get(`lab:${page.lab}`)?.gaps ?? 0;
      if (gaps > before) window.courseProgress.set(`lab:${page.lab}`, { on: today(), gaps });
      return `${page.title}: accepted. ${Math.max(gaps, before) === page.gaps ? "The lab is done." : "Well begun."}`;
    }
    return "This is no code of a lab. Compare it with what the lab's last cell prints, such as density-3-A1B2.";
  }

  // --- What is shown ---

  function make(tag, attributes = {}, ...inside) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") made.addEventListener(name, value);
      else made.setAttribute(name, value);
    }
    made.append(...inside);
    return made;
  }

  function icon(state) {
    const svg = new DOMParser().parseFromString(
      `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" width="16" height="16" class="study-icon" data-state="${state}" aria-hidden="true"><circle cx="8" cy="8" r="7"/><path d="${state === "done" ? "M4.5 8.3l2.4 2.5 4.6-5.3" : "M8 1a7 7 0 0 1 0 14z"}"/></svg>`,
      "image/svg+xml",
    );
    return document.importNode(svg.documentElement, true);
  }

  const mark = (state) =>
    make("span", { class: "study-mark" }, icon(state), make("span", { class: "visually-hidden" }, ` (${state})`));

  function pageOf(address) {
    const path = decodeURI(new URL(address, location.href).pathname);
    const name = path.startsWith(root) && path.slice(root.length).replace(/\.html$/, "");
    return study.pages.find((page) => page.page === name);
  }

  const linkTo = (page, text) => make("a", { href: `${root}${page}.html` }, text);

  function showMarks() {
    const entries = load();
    document.querySelectorAll("nav.bd-links a.reference").forEach((link) => {
      const page = pageOf(link.getAttribute("href"));
      link.querySelector(".study-mark")?.remove();
      const state = page && stateOf(page, entries).state;
      if (state) link.append(mark(state));
    });
    document.querySelectorAll(".study-graph a[data-page]").forEach((box) => {
      const { state } = stateOf(pageOf(`${root}${box.dataset.page}.html`), entries), rect = box.querySelector("rect");
      box.dataset.state = state;
      box.querySelector(".study-icon")?.remove();
      box.setAttribute("aria-label", box.querySelector("text").textContent.trim() + (state && ` (${state})`));
      if (!state) return;
      const sign = icon(state);
      sign.setAttribute("x", Number(rect.getAttribute("x")) + Number(rect.getAttribute("width")) - 10);
      sign.setAttribute("y", Number(rect.getAttribute("y")) - 6);
      box.append(sign);
    });
  }

  function codeForm() {
    const input = make("input", { id: "study-code", autocomplete: "off", spellcheck: "false", size: 18 });
    const said = make("p", { role: "status" });
    const submit = (event) => {
      event.preventDefault();
      said.textContent = accept(input.value);
    };
    const label = make("label", { for: "study-code" }, "The code that the lab’s last cell prints");
    return make("form", { class: "study-code", submit }, label, input, make("button", {}, "Enter"), said);
  }

  // At the end of a chapter: a button. At the end of a lab: the box for its code.
  function foot(page) {
    const said = make("p", { role: "status" }), more = make("p", {}, linkTo("book/progress", "Your progress"));
    const key = `read:${page.page}`;
    const press = () => (load().has(key) ? change((entries) => entries.delete(key)) : window.courseProgress.set(key, { on: today() }));
    const button = make("button", { type: "button", click: press });
    const place = make("section", { class: "study-foot", "aria-label": "Your progress here" });
    place.append(...(page.lab ? [codeForm()] : [button]), said, more);
    document.querySelector("article").append(place);
    return () => {
      const entries = load(), { words } = stateOf(page, entries);
      button.textContent = entries.has(key) ? "Mark as not read" : "Mark this chapter as read";
      const line = page.lab || entries.has(key) ? `So far: ${words}.` : "";
      if (said.textContent !== line) said.textContent = line;
    };
  }

  // Once, and quietly: what storage does not take is lost with the page.
  function warn() {
    if (!unsaved.size || document.querySelector(".study-note")) return;
    const close = make("button", { type: "button", click: () => (note.hidden = true) }, "Close");
    const note = make("p", { class: "study-note", role: "status" }, "Your progress is not kept: this browser’s storage is full or switched off. ", close);
    document.body.append(note);
  }

  // --- The page "Your progress" ---

  function progressPage(box) {
    const said = make("p", { role: "status", class: "study-said" });
    const say = (text, undo) => said.replaceChildren(text, ...(undo ? [" ", make("button", { type: "button", click: undo }, "Undo")] : []));
    const button = (text, click) => make("button", { type: "button", click }, text);
    const choice = make("select", { id: "study-path", change: () => window.courseProgress.set("path", { name: choice.value }) });
    choice.append(make("option", { value: "" }, "The whole book, in its order"));
    for (const path of study.paths) choice.append(make("option", { value: path.name }, path.title));
    const damage = make("div", { class: "study-damage" }), next = make("p", { class: "study-next" }), bar = make("progress", { "aria-label": "Pages done" });
    const count = make("p"), rows = make("tbody");

    // Exchange all entries, and say so with a way back.
    function replace(entries, text) {
      const before = load();
      change((all) => {
        all.clear();
        for (const [key, value] of entries) all.set(key, value);
      });
      say(text, () => {
        replace(before, "All is as it was.");
        remove.focus();
      });
    }

    function save(text, name) {
      const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
      make("a", { href: url, download: `${name}-${today()}.json` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 1000);
    }

    // Of two entries for one key the one with more done in it.
    const more = (a, b) => (b && (b.right > a.right || b.gaps > a.gaps) ? b : a);

    async function read() {
      const file = input.files[0], merge = box.querySelector("[name=study-load]:checked").value === "merge";
      const text = file.size < LARGEST ? await file.text().catch(() => "") : " ".repeat(LARGEST);
      const { entries, fault } = parse(text), mine = load();
      input.value = ""; // so that the same file can be chosen again
      if (fault) return say(`Nothing was changed: “${file.name}” cannot be used, for ${fault}.`);
      for (const [key, value] of merge ? mine : []) entries.set(key, more(value, entries.get(key)));
      replace(entries, `“${file.name}” was ${merge ? "added to what was here" : "put in place of what was here"}.`);
    }

    const input = make("input", { type: "file", accept: ".json,application/json", change: read });
    const way = (value, text) => {
      const radio = make("input", { type: "radio", name: "study-load", value, ...(value === "merge" && { checked: "" }) });
      return make("label", {}, radio, ` ${text}`);
    };
    const sure = make("span", { hidden: "" }, "Remove all progress from this browser? ");
    const remove = button("Remove everything", () => {
      sure.hidden = false;
      remove.hidden = true;
      sure.querySelector("button:last-child").focus();
    });
    const decide = (text, act) => button(text, () => {
      sure.hidden = true;
      remove.hidden = false;
      remove.focus();
      act();
    });
    sure.append(decide("Remove", () => replace(new Map(), "Everything was removed.")), " ", decide("Keep", () => say("Nothing was removed.")));

    const head = make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Page"), make("th", { scope: "col" }, "So far")));
    box.replaceChildren(
      damage,
      make("p", {}, make("label", { for: "study-path" }, "Path"), " ", choice),
      make("div", { class: "study-bar" }, bar, count),
      next,
      make("table", { class: "table" }, head, rows),
      codeForm(),
      make("p", {}, button("Save to a file", () => save(write(load()), "course-progress"))),
      make("fieldset", {}, make("legend", {}, "Load from a file"), way("merge", "and add it to what is here"), way("replace", "in place of what is here"),
        make("label", { class: "study-file" }, "File ", input)),
      make("p", {}, remove, sure),
      said,
    );

    return () => {
      const entries = load();
      choice.value = entries.get("path")?.name ?? "";
      if (choice.selectedIndex < 0) choice.value = ""; // a path that is no more
      const path = study.paths.find((each) => each.name === choice.value);
      const order = path ? path.steps.flat() : study.pages.map((page) => page.page);
      const pages = order.map((name) => study.pages.find((page) => page.page === name)).filter(Boolean); // others are to come
      const states = pages.map((page) => stateOf(page, entries));
      const done = states.filter(({ state }) => state === "done").length, first = states.findIndex(({ state }) => state !== "done");
      bar.max = pages.length;
      bar.value = done;
      count.textContent = `${done} of ${pages.length} pages done`;
      next.replaceChildren(...(first < 0 ? ["You have done all that there is of this path so far."] : ["Next: ", linkTo(pages[first].page, pages[first].title)]));
      rows.replaceChildren(...pages.map((page, i) => {
        const title = make("th", { scope: "row" }, linkTo(page.page, page.title));
        if (states[i].state) title.append(mark(states[i].state));
        return make("tr", {}, title, make("td", {}, states[i].words));
      }));
      damage.replaceChildren();
      let text = null;
      try {
        text = localStorage.getItem(ASIDE);
      } catch {}
      if (text !== null)
        damage.append(make("p", {}, "Some of what this browser had stored could not be read. It was set aside. "),
          button("Save it to a file", () => save(text, "damaged-progress")), " ",
          button("Forget it", () => {
            localStorage.removeItem(ASIDE);
            tell();
            say("It was forgotten.");
            choice.focus();
          }));
    };
  }

  document.addEventListener("DOMContentLoaded", () => {
    const here = pageOf(location.href), box = document.querySelector(".study-progress");
    const shows = [showMarks, warn, ...(here ? [foot(here)] : []), ...(box ? [progressPage(box)] : [])];
    listeners.add(() => shows.forEach((show) => show()));
    tell();
  });
})();
