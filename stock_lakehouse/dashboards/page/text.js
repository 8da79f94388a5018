'use strict';
// Text and small elements: numbers as people read them, tables. Delivered text is set as text and never as HTML.

const byId = (id) => document.getElementById(id);

const DECIMALS = new Intl.NumberFormat('en-US', { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const DIGITS = new Intl.NumberFormat('en-US', { maximumSignificantDigits: 4 });
const COMPACT = new Intl.NumberFormat('en-US', { notation: 'compact', minimumFractionDigits: 2, maximumFractionDigits: 2 });
const WHOLE = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });
const PER_CENT = new Intl.NumberFormat('en-US', { style: 'percent', minimumFractionDigits: 2 });
const CHANGE = new Intl.NumberFormat('en-US', { style: 'percent', minimumFractionDigits: 2, signDisplay: 'exceptZero' });
const UNKNOWN = '–';

// A number as people read it. `unit`: price (also none), shares, change, fraction, count.
function written(value, unit) {
  if (value == null) return UNKNOWN;
  if (unit === 'shares') return COMPACT.format(value);
  if (unit === 'change') return CHANGE.format(value);
  if (unit === 'fraction') return PER_CENT.format(value);
  if (unit === 'count') return WHOLE.format(value);
  return Math.abs(value) >= 1 ? DECIMALS.format(value) : DIGITS.format(value);
}

// An element with a class and a text, or with children.
function element(tag, className, ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content.filter((part) => part != null));
  return made;
}

function button(text, press) {
  const made = element('button', '', text);
  made.type = 'button';
  made.addEventListener('click', press);
  return made;
}

// A value as people read it; its attributes have the column's name and the shortest text of the double.
function valueOf(tag, column, value, unit) {
  const made = element(tag, tag === 'td' ? 'number' : '', typeof value === 'string' ? value : written(value, unit));
  made.dataset.value = column;
  made.dataset.exact = value == null ? '' : String(value);
  return made;
}

// A table in a box that scrolls sideways. `columns`: [heading, cell of a row]; a cell is text, or an element td.
function tableOf(columns, rows, className = 'short') {
  const made = element('table', 'rows');
  const head = made.createTHead().insertRow();
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const [, cell] of columns) {
      const content = cell(row);
      line.append(content instanceof Element ? content : element('td', className, content ?? UNKNOWN));
    }
  }
  columns.forEach(([heading], place) => {
    const heads = element('th', body.rows[0]?.cells[place].classList.contains('number') ? 'number' : '', heading);
    heads.scope = 'col';
    head.append(heads);
  });
  return element('div', 'wide', made);
}

// The day so many months before the day `date`, both as ISO text; the last of its month where the month is shorter.
function monthsBefore(date, months) {
  const [year, month, day] = date.split('-').map(Number);
  const last = new Date(Date.UTC(year, month - months, 0)).getUTCDate();
  return new Date(Date.UTC(year, month - 1 - months, Math.min(day, last))).toISOString().slice(0, 10);
}

// A table that is sorted by a press on a heading; the state of the page, `sort`, has the column, with a - before it if descending.
//
// `columns`: { name, heading, title, unit, cell(row), value(row) }. With a unit the column has numbers, and the first press shows the
// highest at the top. Without `cell` the value is shown. Rows without a value stand last.
function sortableTable(columns, label) {
  const table = element('table', 'rows sortable');
  table.setAttribute('aria-label', label);
  const body = element('tbody', '');
  let lines = []; // [row, its element]
  let isWanted = () => true;

  const heads = columns.map((column) => {
    const first = column.unit ? '-' : '';
    const press = button(column.heading, () => {
      const isFirst = state.sort === first + column.name;
      note({ sort: isFirst ? (first ? column.name : `-${column.name}`) : first + column.name });
      order();
    });
    if (column.title) press.title = column.title;
    const head = element('th', column.unit ? 'number' : '', press);
    head.scope = 'col';
    return head;
  });
  table.append(element('thead', '', element('tr', '', ...heads)), body);

  const valueIn = (column, row) => (column.value ? column.value(row) : row[column.name]) ?? null;
  const cellOf = (column, row) => {
    const content = column.cell ? column.cell(row) : column.unit ? valueOf('td', column.name, row[column.name], column.unit) : row[column.name];
    return content instanceof Element ? content : element('td', 'short', content ?? UNKNOWN);
  };

  // Sort as the state says, and show the wanted rows.
  function order() {
    const descending = state.sort?.startsWith('-');
    const sorted = columns.find(({ name }) => name === state.sort?.replace(/^-/, ''));
    columns.forEach((column, at) => {
      if (column === sorted) heads[at].setAttribute('aria-sort', descending ? 'descending' : 'ascending');
      else heads[at].removeAttribute('aria-sort');
    });
    const shown = lines.filter(([row]) => isWanted(row));
    if (sorted) {
      const sign = descending ? -1 : 1;
      const keys = new Map(shown.map(([row]) => [row, valueIn(sorted, row)]));
      shown.sort(([one], [other]) => {
        const [a, b] = [keys.get(one), keys.get(other)];
        if (a === null || b === null) return (a === null) - (b === null);
        return a < b ? -sign : a > b ? sign : 0;
      });
    }
    body.replaceChildren(...shown.map(([, line]) => line));
    return shown.length;
  }

  return {
    box: element('div', 'wide', table),
    // Show other rows; return how many are wanted.
    fill(rows, wanted = isWanted) {
      isWanted = wanted;
      lines = rows.map((row) => [row, element('tr', '', ...columns.map((column) => cellOf(column, row)))]);
      return order();
    },
    // Show the rows that `wanted` says, of those that are there; return how many.
    filter(wanted) {
      isWanted = wanted;
      return order();
    },
  };
}
