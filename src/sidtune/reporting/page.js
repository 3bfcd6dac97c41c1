"use strict";
// A block, so that these names do not meet those of the library.
{
  const charts = JSON.parse(document.getElementById("charts").textContent);
  // Expressions are interpreted (`ast`), since the page's policy forbids to compile them.
  const options = { actions: false, ast: true, renderer: "svg" };
  const draw = ([id, spec]) => vegaEmbed(document.getElementById(id), spec, options);
  Promise.all(Object.entries(charts).map(draw)).then(
    (drawn) => { document.documentElement.dataset.drawn = String(drawn.length); },
    (error) => { console.error(error); },
  );
}
