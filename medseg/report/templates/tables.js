(function () {
  "use strict";
  function all(selector, root) { return Array.prototype.slice.call((root || document).querySelectorAll(selector)); }
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
      if (!head.querySelector("button")) return;
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
    var section = search.closest("section"), rows = all("tbody tr", section);
    var chips = all(".chips button", section), count = section.querySelector(".chips output"), chosen = "all";
    function apply() {
      var words = search.value.toLowerCase().split(/\s+/).filter(Boolean), shown = 0;
      rows.forEach(function (row) {
        var text = row.children[0].textContent.toLowerCase();
        var kinds = (row.dataset.kinds || "").split(" ");
        var seen = (chosen === "all" || kinds.indexOf(chosen) >= 0) &&
          words.every(function (word) { return text.indexOf(word) >= 0; });
        row.hidden = !seen;
        shown += seen ? 1 : 0;
      });
      if (count) count.textContent = shown === rows.length ? shown + " in all" : shown + " of " + rows.length;
    }
    search.addEventListener("input", apply);
    chips.forEach(function (chip) {
      chip.addEventListener("click", function () {
        chosen = chip.value;
        chips.forEach(function (other) { other.setAttribute("aria-pressed", String(other === chip)); });
        apply();
      });
    });
    apply();
  });
})();
