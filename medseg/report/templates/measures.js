(function () {
  "use strict";
  function all(selector, root) { return Array.prototype.slice.call((root || document).querySelectorAll(selector)); }
  var plots = all(".plots"), buttons = all(".measures button");
  function choose(measure) {
    plots.forEach(function (plot) { plot.hidden = plot.dataset.measure !== measure; });
    buttons.forEach(function (button) { button.setAttribute("aria-pressed", String(button.value === measure)); });
  }
  buttons.forEach(function (button) { button.addEventListener("click", function () { choose(button.value); }); });
  if (buttons.length) choose(buttons[0].value);
})();
