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
  all("[data-noscript]").forEach(function (part) { part.hidden = true; });
  all("[data-script]").forEach(function (part) { part.hidden = false; });

  function key(row, column) {
    var cell = row.children[column];
    if (cell.dataset.value === undefined) return cell.textContent.toLowerCase();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  }
  all("table.sortable").forEach(function (table) {
    var heads = all("th", table), body = table.tBodies[0];
    heads.forEach(function (head, column) {
      head.addEventListener("click", function () {
        var down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        all("tr", body).sort(function (one, other) {
          var a = key(one, column), b = key(other, column);
          if (a === null || b === null) return (a === null) - (b === null);
          return (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1);
        }).forEach(function (row) { body.appendChild(row); });
      });
    });
  });
  all("input.search").forEach(function (search) {
    var rows = all("tbody tr", search.closest("section"));
    search.addEventListener("input", function () {
      var words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      rows.forEach(function (row) {
        var text = row.children[0].textContent.toLowerCase();
        row.hidden = !words.every(function (word) { return text.indexOf(word) >= 0; });
      });
    });
  });
})();
