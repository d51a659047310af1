// What the theme leaves undone for readers who use the keyboard or a screen reader.
(function () {
  const wide = "pre, .pst-scrollable-table-container, .text_html, mjx-container[display=true], mjx-container.wide";

  function mend() {
    // A visible text must be part of its control's name: let the text be the name.
    document.querySelectorAll(".search-button-field[aria-label], details.hide > summary[aria-label]")
      .forEach((control) => control.removeAttribute("aria-label"));
    // docutils gives an entry of the bibliography a role that is no longer in use, and no place in its list.
    document.querySelectorAll(".citation-list > .citation").forEach((entry) => entry.setAttribute("role", "listitem"));
    // A formula in the text that is longer than a line scrolls inside itself. (Always, and it would leave the baseline.)
    document.querySelectorAll("article mjx-container:not([display])").forEach((formula) => {
      formula.classList.remove("wide");
      const room = formula.closest("p, li, td, dd, div").clientWidth;
      formula.classList.toggle("wide", formula.getBoundingClientRect().width > room);
    });
    // What scrolls sideways must be within the keyboard's reach.
    document.querySelectorAll(wide).forEach((box) => {
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
    });
  }

  // A page is printed in the light, with its solutions open, and looks afterwards as it did before.
  let undo = [];
  window.addEventListener("beforeprint", () => {
    const root = document.documentElement, theme = root.dataset.theme;
    root.dataset.theme = "light";
    undo.push(() => { root.dataset.theme = theme; });
    document.querySelectorAll("article details:not(.hide):not([open])").forEach((fold) => {
      fold.open = true;
      undo.push(() => { fold.open = false; });
    });
  });
  window.addEventListener("afterprint", () => {
    undo.forEach((step) => step());
    undo = [];
  });

  document.addEventListener("DOMContentLoaded", mend);
  window.addEventListener("resize", mend);
  window.addEventListener("load", () => {
    mend();
    if (window.MathJax && MathJax.startup) MathJax.startup.promise.then(mend);
  });
  document.addEventListener("toggle", mend, true);
})();
