(function () {
  "use strict";
  var NAMES = ["accent", "second", "muted", "line", "warn", "paper", "ink"];
  var figures = JSON.parse(document.getElementById("figures").textContent);
  var plots = [];

  function palette(print) {
    var style = getComputedStyle(document.documentElement), found = {};
    NAMES.concat("scale0", "scale1").forEach(function (name) {
      found[name] = style.getPropertyValue((print ? "--print-" : "--") + name).trim() ||
        style.getPropertyValue("--" + name).trim();
    });
    found.scale = [[0, found.scale0], [1, found.scale1]];
    return found;
  }

  // Only what a colour may stand in is replaced: a class named "muted" stays a class.
  function coloured(value, colours, key) {
    if (Array.isArray(value)) { return value.map(function (one) { return coloured(one, colours, key); }); }
    if (value && typeof value === "object") {
      var copy = {};
      Object.keys(value).forEach(function (name) { copy[name] = coloured(value[name], colours, name); });
      return copy;
    }
    return (key === "color" || key === "colorscale") && colours[value] ? colours[value] : value;
  }

  // On a phone a matrix has room for some dozen names along an axis; the hover and the tables name every class.
  function thin(axis) {
    var step = Math.ceil(axis.tickvals.length / 14);
    function kept(_, i) { return i % step === 0; }
    axis.tickvals = axis.tickvals.filter(kept);
    axis.ticktext = axis.ticktext.filter(kept);
  }

  function draw(id, print) {
    var figure = figures[id], element = document.getElementById(id), colours = palette(print);
    var width = element.clientWidth, narrow = width < 560;
    var data = coloured(figure.data, colours), layout = coloured(figure.layout, colours);
    var axis = { gridcolor: colours.line, zerolinecolor: colours.line, automargin: true, ticks: "", fixedrange: narrow };
    layout.xaxis = Object.assign({}, axis, layout.xaxis);
    layout.yaxis = Object.assign({}, axis, layout.yaxis);
    if (figure.square) {
      layout.height = Math.min(width, figure.classes <= 4 ? 420 : 760);
      if (narrow) {
        delete layout.yaxis.title;
        thin(layout.xaxis);
        thin(layout.yaxis);
      }
      if (narrow && figure.classes > 12) { data.forEach(function (trace) { delete trace.texttemplate; }); }
    } else if (narrow) {
      layout.height = Math.round(layout.height * 0.85);
    }
    Object.assign(layout, {
      autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colours.ink, family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 13 },
      margin: { l: 12, r: 12, t: 12, b: 12 }, hovermode: "closest", dragmode: narrow ? false : "zoom",
      hoverlabel: { align: "left" },
      legend: { orientation: "h", x: 0, y: 1.02, xanchor: "left", yanchor: "bottom" }
    });
    return Plotly.react(element, data, layout, { responsive: true, displayModeBar: false, displaylogo: false });
  }

  function drawAll(print) {
    return Promise.all(plots.map(function (id) { return draw(id, print); }));
  }

  function sortable(table) {
    table.querySelectorAll("th button").forEach(function (button) {
      button.addEventListener("click", function () {
        var head = button.parentElement, column = Array.from(head.parentElement.children).indexOf(head);
        var up = head.getAttribute("aria-sort") === "descending" || (!head.hasAttribute("aria-sort") && column === 0);
        head.parentElement.querySelectorAll("th").forEach(function (one) { one.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        var body = table.tBodies[0], rows = Array.from(body.rows);
        rows.sort(function (a, b) { return compare(a.cells[column], b.cells[column], up); });
        rows.forEach(function (row) { body.appendChild(row); });
      });
    });
  }

  // What is not known comes last, whichever way the rest is sorted.
  function compare(a, b, up) {
    var x = a.dataset.value, y = b.dataset.value;
    if (x === "" || y === "") { return x === y ? 0 : x === "" ? 1 : -1; }
    var order = isNaN(x) || isNaN(y) ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
    return up ? order : -order;
  }

  document.querySelectorAll("table.sortable").forEach(sortable);
  if (typeof Plotly !== "undefined") {
    plots = Object.keys(figures).filter(function (id) { return document.getElementById(id); });
    drawAll(false).then(function () { document.documentElement.dataset.drawn = plots.length; });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () { drawAll(false); });
    addEventListener("beforeprint", function () { drawAll(true); });
    addEventListener("afterprint", function () { drawAll(false); });
    var timer;
    addEventListener("resize", function () { clearTimeout(timer); timer = setTimeout(drawAll, 150, false); });
  } else {
    document.documentElement.dataset.drawn = 0;
  }
})();
