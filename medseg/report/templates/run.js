(function () {
  "use strict";
  function all(selector, root) { return Array.prototype.slice.call((root || document).querySelectorAll(selector)); }
  function words(value) {
    if (value === null) return "no value";
    if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(2);
    return String(Number(value.toPrecision(4)));
  }

  var charts = all(".chart").map(function (figure) {
    var span = figure.dataset.span.split(" ").map(Number);
    return {
      figure: figure, over: figure.dataset.over, low: span[0], high: span[1], plot: figure.querySelector(".plot"),
      cursor: figure.querySelector(".cursor"), lines: JSON.parse(figure.dataset.lines),
      marks: JSON.parse(figure.dataset.marks), outputs: all(".legend output", figure),
      title: figure.querySelector("h3"), at: null
    };
  });
  charts.forEach(function (chart) {
    chart.last = chart.outputs.map(function (output) { return output.textContent; });
    chart.note = document.createElement("small");
    chart.note.className = "at";
    chart.title.appendChild(chart.note);
  });
  function nearest(xs, x) {
    var low = 0, high = xs.length - 1;
    while (high - low > 1) {
      var middle = (low + high) >> 1;
      if (xs[middle] < x) low = middle; else high = middle;
    }
    return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
  }
  function show(chart, x) {
    var part = 100 * (x - chart.low) / (chart.high - chart.low || 1), near = (chart.high - chart.low) / 80;
    chart.cursor.setAttribute("x1", part + "%");
    chart.cursor.setAttribute("x2", part + "%");
    chart.cursor.setAttribute("visibility", "visible");
    chart.lines.forEach(function (line, index) {
      chart.outputs[index].textContent = words(line[1][nearest(line[0], x)]);
    });
    var texts = chart.marks.filter(function (mark) { return Math.abs(mark[0] - x) <= near; })
      .map(function (mark) { return mark[1]; });
    var unit = chart.over === "hours" ? " h" : "";
    chart.note.textContent = (chart.over === "hours" ? "" : "epoch ") + words(x) + unit +
      (texts.length ? ": " + texts.slice(0, 2).join("; ") + (texts.length > 2 ? " and " + (texts.length - 2) + " more" : "") : "");
  }
  function hide(chart) {
    chart.cursor.setAttribute("visibility", "hidden");
    chart.outputs.forEach(function (output, index) { output.textContent = chart.last[index]; });
    chart.note.textContent = "";
  }
  charts.forEach(function (chart) {
    chart.plot.addEventListener("pointermove", function (event) {
      var box = chart.plot.getBoundingClientRect();
      var part = Math.min(1, Math.max(0, (event.clientX - box.left) / (box.width || 1)));
      var x = chart.low + part * (chart.high - chart.low);
      charts.forEach(function (other) { if (other.over === chart.over) show(other, x); });
    });
    chart.plot.addEventListener("pointerleave", function () {
      charts.forEach(function (other) { if (other.over === chart.over) hide(other); });
    });
  });

  all(".shots").forEach(function (figure) {
    var shots = all(".shot", figure), slider = figure.querySelector("input"), label = figure.querySelector("output");
    if (!slider) return;
    figure.classList.add("one");
    function choose() {
      shots.forEach(function (shot, index) { shot.classList.toggle("off", index !== Number(slider.value)); });
      label.textContent = shots[Number(slider.value)].dataset.title;
    }
    slider.addEventListener("input", choose);
    choose();
  });

  var tree = document.querySelector(".tree"), seek = document.querySelector(".seek");
  if (!tree) return;
  var leaves = all(".leaf", tree), parts = all("details", tree), fold = document.querySelector(".fold");
  var count = seek.parentNode.querySelector("output");
  var texts = leaves.map(function (leaf) { return (leaf.dataset.path + " " + leaf.textContent).toLowerCase(); });
  seek.addEventListener("input", function () {
    var sought = seek.value.toLowerCase().split(/\s+/).filter(Boolean), shown = 0;
    leaves.forEach(function (leaf, index) {
      var seen = sought.every(function (word) { return texts[index].indexOf(word) >= 0; });
      leaf.hidden = !seen;
      shown += seen ? 1 : 0;
    });
    parts.forEach(function (part) {
      var holds = part.querySelector(".leaf:not([hidden])") !== null;
      part.hidden = !holds;
      part.open = sought.length > 0 && holds;
    });
    count.textContent = sought.length ? shown + " of " + leaves.length : "";
  });
  fold.addEventListener("click", function () {
    var open = parts.some(function (part) { return !part.open; });
    parts.forEach(function (part) { part.open = open; });
    fold.textContent = open ? "Close all" : "Open all";
  });
})();
