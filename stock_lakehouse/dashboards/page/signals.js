'use strict';
// The page Signals: the newest session of every ticker, and the signals and crosses of the last sessions.

{
let parts; // the page's elements
let table;
let found; // the answer

// A signal is told by its sign and word; its colour only repeats them.
const EVENTS = [
  ['golden_cross', '▲', 'Golden cross', 'up'], ['death_cross', '▼', 'Death cross', 'down'],
  ['buy_signal', '▲', 'Buy signal', 'up'], ['sell_signal', '▼', 'Sell signal', 'down'],
];
const ZONES = { overbought: '▲', oversold: '▼' };
const COLUMNS = [
  { name: 'ticker', heading: 'Ticker', cell: tickerCell },
  { name: 'close', heading: 'Close', unit: 'price' },
  { name: 'return_1d', heading: 'Change', unit: 'change', title: 'Return of the session, dividends included', cell: ({ return_1d }) => colored(valueOf('td', 'return_1d', return_1d, 'change'), return_1d) },
  { name: 'drawn', heading: '60 sessions', cell: picture, unit: 'change', value: ({ drawn }) => drawn.at(-1) - drawn[0], title: 'The last closes; sorts by where the newest is between the lowest and the highest, against the first' },
  { name: 'rsi_14', heading: 'RSI 14', unit: 'price', title: 'Overbought at 70 and above, oversold at 30 and below', cell: rsiCell },
  { name: 'macd_hist', heading: 'MACD hist.', unit: 'price', cell: ({ macd_hist }) => colored(valueOf('td', 'macd_hist', macd_hist, 'price'), macd_hist) },
  { name: 'volatility_20', heading: 'Volatility 20', unit: 'fraction', title: 'Sample deviation of the returns of 20 sessions, a session' },
  { name: 'from_high', heading: 'From 52-week high', unit: 'change' },
  { name: 'signal_date', heading: 'Last signal', cell: (row) => eventCell(row, 'signal') },
  { name: 'tradable_from', heading: 'Tradable from', title: 'First session on which the last signal can be traded' },
  { name: 'cross_date', heading: 'Last cross', cell: (row) => eventCell(row, 'cross') },
  { name: 'date', heading: 'Session', cell: dateCell },
];

pages.signals = {
  title: 'Signals',
  hasNoRange: true,
  keys: [['↑ ↓', 'the ticker before, after'], ['Enter', 'opens the ticker'], ['F', 'to the filter']],

  build(section) {
    parts = { filter: element('input', ''), count: element('span', 'name'), events: element('div', ''), title: element('h2', '') };
    Object.assign(parts.filter, { type: 'search', placeholder: 'Filter: a ticker, oversold, buy …', spellcheck: false, autocomplete: 'off', size: 28 });
    parts.filter.setAttribute('aria-label', 'Filter the tickers');
    parts.filter.addEventListener('input', () => {
      note({ filter: parts.filter.value });
      filter();
    });
    parts.filter.addEventListener('keydown', (event) => {
      const [first] = links();
      if (!first || !['Enter', 'ArrowDown'].includes(event.key)) return;
      event.preventDefault();
      if (event.key === 'Enter') first.click();
      else first.focus();
    });
    parts.events.id = 'events';
    table = sortableTable(COLUMNS, 'The newest session of every ticker');
    table.box.id = 'signals_table';
    table.box.classList.add('pinned');
    section.append(parts.title, parts.events, element('div', 'bar', element('h2', '', 'Newest session of every ticker'), parts.filter, parts.count), table.box);
  },

  async open() {
    found = await answer('signals');
    parts.filter.value = state.filter ?? '';
    drawEvents();
    table.fill(found.rows, wanted());
    filter();
  },

  key(event) {
    if (event.key === 'f' || event.key === 'F') parts.filter.select();
    else if (event.target.closest('#events .wide') === event.target) return false; // the box scrolls
    else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      const all = links();
      const at = all.indexOf(document.activeElement);
      const next = all[at < 0 ? 0 : at + (event.key === 'ArrowDown' ? 1 : -1)];
      if (!next) return false;
      next.focus();
      next.scrollIntoView({ block: 'nearest' });
    } else return false;
    return true;
  },
};

const links = () => [...table.box.querySelectorAll('tbody tr td:first-child a')];

// Whether a row has all words of the filter: each begins a word of its ticker, zone, signal or cross.
function wanted() {
  const words = (state.filter ?? '').toLowerCase().split(/\s+/).filter(Boolean);
  return (row) => {
    const has = [row.ticker, row.zone, row.signal, row.cross].filter(Boolean).join(' ').toLowerCase().split(' ');
    return words.every((word) => has.some((text) => text.startsWith(word)));
  };
}

function filter() {
  const shown = table.filter(wanted());
  const all = found.rows.length;
  parts.count.textContent = shown === all ? `${all} tickers` : `${shown} of ${all} tickers`;
  if (!shown && all) parts.count.textContent = `None of ${all} tickers has all words of the filter.`;
}

// ---- signals and crosses of the last sessions: a row a session, a column a kind

function drawEvents() {
  parts.title.textContent = found.since ? `Signals and crosses from ${found.since} to ${found.newest}` : 'Signals and crosses';
  if (!found.events.length) {
    parts.events.replaceChildren(element('p', '', 'There was none on these sessions.'));
    return;
  }
  const days = new Map();
  for (const event of found.events) days.set(event.until, [...(days.get(event.until) ?? []), event]);
  const cellOf = (column) => ([, events]) => {
    const cell = element('td', 'names');
    for (const event of events.filter((one) => one.column === column)) {
      const link = tickerLink(event.ticker);
      link.title = `Close ${written(event.close, 'price')}, RSI ${written(event.rsi_14, 'price')}${event.date < event.until ? `, since ${event.date}` : ''}`;
      cell.append(link, ' ');
    }
    return cell;
  };
  parts.events.replaceChildren(tableOf([
    ['Session', ([until]) => until],
    ['Tradable from', ([, events]) => events[0].tradable_from],
    ...EVENTS.map(([column, sign, label]) => [`${sign} ${label}`, cellOf(column)]),
  ], [...days]));
  parts.events.firstChild.tabIndex = 0; // it scrolls, also by keys
  parts.events.firstChild.setAttribute('role', 'group');
  parts.events.firstChild.setAttribute('aria-label', parts.title.textContent);
}

// ---- cells

// A ticker; a link if this page has its charts, which a file may not have.
function tickerLink(ticker) {
  return about.tickers.includes(ticker) ? linkTo({ page: 'ticker', ticker }, ticker) : element('span', '', ticker);
}

function tickerCell({ ticker }) {
  return element('td', 'short', tickerLink(ticker));
}

function colored(made, value) {
  if (value) made.style.color = `var(--${value < 0 ? 'down' : 'up'})`;
  return made;
}

function rsiCell({ rsi_14, zone }) {
  const cell = valueOf('td', 'rsi_14', rsi_14, 'price');
  if (zone) cell.prepend(element('span', `zone ${zone}`, `${zone} ${ZONES[zone]}`), ' ');
  return cell;
}

function eventCell(row, kind) {
  const label = row[kind];
  if (!label) return UNKNOWN;
  const [, sign, , color] = EVENTS.find(([, , name]) => name === label);
  const made = element('span', row[`${kind}_date`] === found.newest ? 'mark new' : 'mark', `${sign} ${label.split(' ')[0]}`);
  made.style.color = `var(--${color})`;
  const date = valueOf('span', `${kind}_date`, row[`${kind}_date`]);
  return element('td', 'short', made, ' ', date);
}

function dateCell({ date }) {
  const cell = valueOf('td', 'date', date);
  cell.className = 'short';
  if (date < found.newest) cell.append(' ', element('span', 'name', 'older'));
  return cell;
}

// The last closes as a line, with the words that say it.
function picture({ drawn, low, high }) {
  const space = 'http://www.w3.org/2000/svg';
  const made = document.createElementNS(space, 'svg');
  const line = document.createElementNS(space, 'polyline');
  made.setAttribute('viewBox', '0 0 120 28');
  made.setAttribute('class', 'spark');
  made.setAttribute('role', 'img');
  made.setAttribute('aria-label', `${drawn.length} closes between ${written(low, 'price')} and ${written(high, 'price')}`);
  const step = 118 / Math.max(drawn.length - 1, 1);
  line.setAttribute('points', drawn.map((height, at) => `${(1 + at * step).toFixed(1)},${(26 - height * 0.24).toFixed(1)}`).join(' '));
  line.style.stroke = `var(--${drawn.at(-1) < drawn[0] ? 'down' : 'up'})`;
  made.append(line);
  return element('td', 'drawn', made);
}
}
