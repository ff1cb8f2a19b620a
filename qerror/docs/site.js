"use strict";
// Pages that have all words of the question; those whose title has them come first.
const box = document.getElementById("search"), found = document.getElementById("found");
box.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rank = ([title, , text]) => words.every((word) => title.toLowerCase().includes(word)) ? 0 : words.every((word) => text.includes(word) || title.toLowerCase().includes(word)) ? 1 : 2;
  const hits = words.length ? pages.map((page) => [rank(page), page]).filter(([place]) => place < 2) : [];
  hits.sort((a, b) => a[0] - b[0] || a[1][0].length - b[1][0].length);
  found.replaceChildren(...hits.slice(0, 15).map(([, [title, name]]) => {
    const item = document.createElement("li"), link = document.createElement("a");
    link.href = name;
    link.textContent = title;
    item.append(link);
    return item;
  }));
});
const filter = document.getElementById("filter");
if (filter) {
  const rows = [...document.querySelectorAll("#audit tbody tr")], count = document.getElementById("count");
  const narrow = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  filter.addEventListener("input", narrow);
  narrow();
}
