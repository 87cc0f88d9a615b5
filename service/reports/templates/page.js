(() => {
  const table = document.getElementById("layers");
  const tools = document.getElementById("tools");
  if (!table || !tools) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const text = document.getElementById("search");
  const flag = document.getElementById("flag");
  const shown = document.getElementById("shown");

  function filter() {
    const wanted = text.value.trim().toLowerCase();
    let count = 0;
    for (const row of rows) {
      const named = row.textContent.toLowerCase().includes(wanted);
      const flagged = !flag.value || row.dataset.flags.split(" ").includes(flag.value);
      row.hidden = !(named && flagged);
      if (!row.hidden) count += 1;
    }
    shown.textContent = `${count} of ${rows.length}`;
  }

  function key(row, column) {
    const cell = row.cells[column];
    if (cell.dataset.key === undefined) return cell.textContent.trim().toLowerCase();
    return cell.dataset.key === "" ? null : Number(cell.dataset.key);
  }

  function sort(header, column) {
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = rows.map((row) => [key(row, column), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
      return down ? -order : order;
    });
    body.append(...keyed.map(([, row]) => row));
  }

  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(header, column));
  });
  text.addEventListener("input", filter);
  flag.addEventListener("change", filter);
  filter();
  tools.hidden = false;
})();
