// A table whose rows stay while their cells change: sorted by its headers, with details below a row.

import { cut, make, setClass, setText } from "./dom.js";

/**
 * columns: [{ title, text(item), sort(item)?, number?, state(item)?, share(item)?, long?, explained?, action(item)? }]; the first
 * names the row. options: key(item), caption, detail(item)?, order(a, b)?, empty, isChosen(item)?
 */
export class Table {
  constructor(element, columns, options) {
    this.columns = columns;
    this.options = options;
    this.rows = new Map();
    this.open = new Set();
    this.items = [];
    this.sorted = null;
    this.body = make("tbody");
    this.headers = columns.map((column, index) => this.header(column, index));
    element.replaceChildren(make("thead", {}, make("tr", {}, ...this.headers)), this.body);
    this.none = make("tr", {}, make("td", { colspan: columns.length, class: "quiet" }, options.empty));
  }

  header(column, index) {
    const cell = make("th", { scope: "col", class: classes(column, index), title: column.explained });
    if (column.sort) {
      const button = make("button", { type: "button" }, column.title);
      button.addEventListener("click", () => this.sortBy(index));
      cell.append(button);
    } else {
      cell.append(column.title);
    }
    return cell;
  }

  sortBy(index) {
    const down = this.sorted?.index === index ? !this.sorted.down : Boolean(this.columns[index].number);
    this.sorted = { index, down };
    this.headers.forEach((cell, at) => {
      if (at === index) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    this.show(this.items);
  }

  show(items) {
    this.items = items;
    const wanted = [];
    const keys = new Set();
    for (const item of this.inOrder(items)) {
      const key = this.options.key(item);
      keys.add(key);
      const row = this.rows.get(key) ?? this.newRow(key);
      this.update(row, item);
      wanted.push(row.element);
      if (this.open.has(key)) {
        row.detail.firstChild.replaceChildren(this.options.detail(item));
        wanted.push(row.detail);
      }
    }
    for (const key of [...this.rows.keys()]) if (!keys.has(key)) this.rows.delete(key);
    place(this.body, wanted.length ? wanted : [this.none]);
  }

  inOrder(items) {
    const { sorted } = this;
    const order = this.options.order ?? (() => 0);
    if (!sorted) return [...items].sort(order);
    const value = this.columns[sorted.index].sort;
    return [...items].sort((a, b) => compare(value(a), value(b), sorted.down) || order(a, b));
  }

  newRow(key) {
    const cells = this.columns.map((column, index) =>
      make(index ? "td" : "th", { scope: index ? null : "row", class: classes(column, index) }));
    const row = { element: make("tr", {}, ...cells), cells, detail: null, button: null, item: null };
    if (this.options.detail || this.options.choose) {
      row.button = make("button", { type: "button", class: "plain" });
      row.button.addEventListener("click", () => (this.options.detail ? this.toggle(key) : this.options.choose(row.item)));
      cells[0].append(row.button);
    }
    if (this.options.detail) {
      row.button.setAttribute("aria-expanded", "false");
      row.detail = make("tr", { class: "detail" }, make("td", { colspan: this.columns.length }));
    }
    this.rows.set(key, row);
    return row;
  }

  toggle(key) {
    if (!this.open.delete(key)) this.open.add(key);
    this.rows.get(key).button.setAttribute("aria-expanded", String(this.open.has(key)));
    this.show(this.items);
  }

  update(row, item) {
    row.item = item;
    setClass(row.element, this.options.isChosen?.(item) ? "chosen" : "");
    this.columns.forEach((column, index) => {
      const cell = row.cells[index];
      const text = column.text(item);
      const state = column.state?.(item);
      let target = index === 0 && row.button ? row.button : cell;
      if (column.state) {
        target = cell.firstChild ?? cell.appendChild(make("span"));
        setClass(target, state ? `state ${state}` : "");
      }
      setText(target, text);
      if (column.long && cell.title !== cut(text)) cell.title = cut(text);
      if (column.share) {
        const share = column.share(item);
        cell.style.setProperty("--share", `${Math.round(100 * Math.min(1, Math.max(0, share || 0)))}%`);
      }
    });
  }
}

function classes(column, index) {
  return [index ? "" : "first-column", column.number ? "number" : "", column.long ? "text" : "", column.share ? "meter" : ""]
    .filter(Boolean).join(" ");
}

/** What nobody knows is last either way. */
function compare(a, b, down) {
  if (a === null || a === undefined) return b === null || b === undefined ? 0 : 1;
  if (b === null || b === undefined) return -1;
  const order = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  return down ? -order : order;
}

/** Moves only what stands elsewhere, so that focus and scrolling stay. */
function place(body, wanted) {
  wanted.forEach((element, index) => {
    if (body.children[index] !== element) body.insertBefore(element, body.children[index] ?? null);
  });
  while (body.children.length > wanted.length) body.lastElementChild.remove();
}
