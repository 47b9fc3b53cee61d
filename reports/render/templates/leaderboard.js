"use strict";
const chosen = name => document.getElementById(name).value;

/* Hides the tables, rows and sections that the three filters leave out; ranks stay those of the whole table. */
function apply() {
  const [metric, family, device] = ["metric", "family", "device"].map(chosen);
  let rows = 0;
  for (const board of document.querySelectorAll(".board")) {
    let tables = 0;
    for (const ranking of board.querySelectorAll(".ranking")) {
      let shown = 0;
      for (const row of ranking.querySelectorAll("tbody tr")) {
        row.hidden = family !== "" && row.dataset.family !== family;
        shown += row.hidden ? 0 : 1;
      }
      ranking.hidden = shown === 0 || (metric !== "" && ranking.dataset.metric !== metric);
      if (!ranking.hidden) { tables += 1; rows += board.dataset.device === device || device === "" ? shown : 0; }
    }
    board.hidden = tables === 0 || (device !== "" && board.dataset.device !== device);
  }
  const none = "no row has all three: choose another metric, family or device";
  document.getElementById("shown").textContent = rows ? `${rows} row${rows === 1 ? "" : "s"}; ranks are among all rows of a table` : none;
}

const filters = document.querySelector(".filters");
filters.hidden = false;
filters.addEventListener("change", apply);
filters.addEventListener("submit", event => event.preventDefault());
apply();
