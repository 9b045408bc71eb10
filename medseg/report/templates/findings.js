(function () {
  "use strict";
  var search = document.getElementById("search");
  if (!search) return;
  var rows = Array.prototype.slice.call(document.querySelectorAll(".findings tbody tr"));
  var texts = rows.map(function (row) { return row.textContent.toLowerCase(); });
  var buttons = Array.prototype.slice.call(document.querySelectorAll(".tools button"));
  var shown = document.getElementById("shown");
  function apply() {
    var words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    var on = {};
    buttons.forEach(function (button) { on[button.value] = button.getAttribute("aria-pressed") === "true"; });
    var count = 0;
    rows.forEach(function (row, index) {
      var seen = on[row.dataset.severity] && words.every(function (word) { return texts[index].indexOf(word) >= 0; });
      row.hidden = !seen;
      count += seen ? 1 : 0;
    });
    shown.textContent = count === rows.length ? count + " findings" : count + " of " + rows.length + " findings";
  }
  search.addEventListener("input", apply);
  buttons.forEach(function (button) {
    button.addEventListener("click", function () {
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "true" ? "false" : "true");
      apply();
    });
  });
  document.querySelectorAll(".kinds button").forEach(function (button) {
    button.addEventListener("click", function () {
      search.value = search.value === button.value ? "" : button.value;
      apply();
    });
  });
  document.querySelectorAll("[data-script]").forEach(function (part) { part.hidden = false; });
  apply();
})();
