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
