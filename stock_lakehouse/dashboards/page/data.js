'use strict';
// The page Data: what the tables hold and how fresh it is, missing sessions, the quarantine, restatements, splits and dividends.

{
let section;

const BYTES = new Intl.NumberFormat('en-US', { notation: 'compact', maximumSignificantDigits: 3, style: 'unit', unit: 'byte', unitDisplay: 'narrow' });

pages.data = {
  title: 'Data',
  hasNoRange: true,

  build(made) {
    section = made;
  },

  async open() {
    const found = await answer('data');
    section.replaceChildren(
      ...freshness(found), ...tables(found), ...coverage(found.coverage), ...quarantine(found.quarantine),
      ...restatements(found.restatements), ...actions(found.actions), named('warehouse', element('div', '')),
    );
    countRows(found); // neither is awaited: each may take seconds
    if (!embedded && !state.as_of) askWarehouse();
  },
};

// ---- parts of several sections

const named = (id, made) => Object.assign(made, { id });
const long = (cell) => (row) => element('td', 'text', cell(row));
const number = (column, unit = 'count') => (row) => valueOf('td', column, row[column], unit);
const counted = (count, one, many = `${one}s`) => `${written(count, 'count')} ${count === 1 ? one : many}`;
const newestOf = (shown, all) => (shown < all ? ` The newest ${shown} are below.` : '');

function tickerCell({ ticker }) {
  return element('td', 'short', about.tickers.includes(ticker) ? linkTo({ page: 'ticker', ticker }, ticker) : ticker);
}

// A long table in a box of its own that scrolls, also by keys.
function tall(id, made, label) {
  made.classList.add('tall');
  made.tabIndex = 0;
  made.setAttribute('role', 'group');
  made.setAttribute('aria-label', label);
  return named(id, made);
}

// Horizontal bars with their numbers. `rows`: [text, number].
function barsOf(id, rows, column) {
  const most = Math.max(...rows.map(([, count]) => count));
  const made = element('dl', 'bars', ...rows.flatMap(([text, count]) => {
    const bar = element('i', '');
    bar.style.width = `${Math.max((count / most) * 100, 0.5)}%`;
    return [element('dt', '', text), element('dd', '', valueOf('b', column, count, 'count'), bar)];
  }));
  return named(id, made);
}

// ---- freshness and tables

function freshness({ last, expected, behind, as_of }) {
  const said = !last ? 'The lake has no bars yet.'
    : behind ? `Bars to ${last}: ${counted(behind, 'session')} behind the calendar, which expects ${expected}.`
    : expected ? `Bars to ${last}, as the calendar expects.` : `Bars to ${last}.`;
  const made = named('freshness', element('p', behind ? 'fresh behind' : 'fresh', element('span', '', last && !behind ? '✓ ' : '⚠ '), said));
  const past = as_of && 'Raw and the Delta tables are shown as they were then. The tables in Parquet keep no history: nothing is known of processed_stocks_daily, and the quarantine has the rows that had landed by then and are refused now.';
  return [made, ...(past ? [named('of_the_past', element('p', 'name', past))] : [])];
}

function tables({ tables: rows }) {
  const text = (column) => (row) => {
    const cell = valueOf('td', column, row[column]);
    cell.className = 'short';
    return cell;
  };
  const missing = (row) => {
    const cell = valueOf('td', 'missing', row.missing, 'count');
    if (row.missing) cell.prepend(element('span', 'zone', row.layer === 'features' ? 'bars without features ' : 'sessions '));
    return cell;
  };
  const made = tableOf([
    ['Table', (row) => named(`table_${row.table}`, Object.assign(element('td', 'short', row.table), { title: row.description }))],
    ['Rows', number('rows')], ['Missing', missing], ['Newest session', text('last')], ['Version', number('version')],
    ['Files', number('files')], ['Size', (row) => element('td', 'number', row.bytes == null ? UNKNOWN : BYTES.format(row.bytes))],
    ['Changed', text('changed')], ['', long((row) => row.description)],
  ], rows);
  return [element('h2', '', 'Tables'), named('data_tables', made)];
}

// Rows that can be known only by opening every file; they come when they are counted.
async function countRows({ tables: rows }) {
  const uncounted = rows.filter((row) => row.rows === null && row.files);
  const cells = uncounted.map(({ table }) => [table, byId(`table_${table}`).parentElement]);
  const cellOf = (line, column) => line.querySelector(`[data-value=${column}]`);
  for (const [, line] of cells) cellOf(line, 'rows').textContent = '…';
  try {
    const counts = await answer('counts');
    for (const [table, line] of cells) {
      cellOf(line, 'rows').replaceWith(valueOf('td', 'rows', counts[table].rows, 'count'));
      if (counts[table].last) cellOf(line, 'last').textContent = cellOf(line, 'last').dataset.exact = counts[table].last;
    }
  } catch (error) {
    if (error instanceof OutdatedError) return; // something else is shown, or this again
    for (const [, line] of cells) Object.assign(cellOf(line, 'rows'), { textContent: UNKNOWN, title: `not counted: ${error.message}` });
  }
}

// ---- which sessions there are, a row a ticker, a column a year

function coverage({ tickers, absent, years, missing, rows, others, gaps, ended, ended_tickers }) {
  const made = [element('h2', '', 'Sessions of each ticker')];
  if (!rows.length) return made;
  made.push(element('p', '', missing
    ? `Of the sessions between the first and the last bar of ${counted(tickers, 'ticker')}, ${written(missing, 'count')} are missing.`
    : `${counted(tickers, 'ticker')}, and no session is missing between the first and the last bar of any.`));
  const most = years.map((year, at) => Math.max(...rows.map(({ cells }) => (cells[at] ? cells[at][0] + cells[at][1] : 0))));
  const table = element('table', 'coverage');
  table.setAttribute('aria-label', 'Sessions of each ticker and year');
  const heads = years.map((year, at) => {
    // The first, each fifth and the last year, so that narrow columns have room.
    const isNamed = years.length <= 12 || at === 0 || year % 5 === 0 || at === years.length - 1;
    const head = element('th', '', isNamed ? String(year).slice(years.length > 12 ? 2 : 0) : '');
    head.scope = 'col';
    head.setAttribute('aria-label', String(year));
    return head;
  });
  const lines = rows.map((row) => {
    const name = row.count === 1 ? row.tickers[0] : `${row.tickers[0]} and ${row.count - 1} more`;
    const head = element('th', '', row.count === 1 && about.tickers.includes(name) ? linkTo({ page: 'ticker', ticker: name }, name) : name);
    head.scope = 'row';
    head.title = `${row.tickers.join(', ')}${row.count > row.tickers.length ? ' …' : ''}: ${row.first} to ${row.last}`;
    const begins = row.cells.findIndex(Boolean);
    return element('tr', '', head, ...row.cells.map((cell, at) => {
      if (!cell) return element('td', '');
      const [held, lacking] = cell;
      const bar = element('i', lacking ? 'lacking' : '', lacking ? String(lacking) : null);
      bar.style.width = `${Math.max(((held + lacking) / most[at]) * 100, 6)}%`;
      const drawn = element('td', at === begins ? 'begins' : '', bar);
      drawn.title = `${name}, ${years[at]}: ${counted(held, 'session')}${lacking ? `, ${lacking} missing` : ''}`;
      drawn.setAttribute('aria-label', drawn.title);
      Object.assign(drawn.dataset, { year: years[at], held, missing: lacking });
      return drawn;
    }));
  });
  table.append(element('thead', '', element('tr', '', element('td', ''), ...heads)), element('tbody', '', ...lines));
  const key = [element('i', ''), ' every session ', element('i', 'lacking', '3'), ' so many sessions are missing ', element('i', 'none'), ' none is expected'];
  made.push(named('coverage', element('div', 'wide', table)), element('p', 'key name', ...key));
  if (others) made.push(element('p', 'name', `${counted(others, 'more ticker')} with other histories.`));
  if (absent.length) made.push(element('p', '', `In the settings, and without a bar: ${absent.slice(0, 40).join(', ')}${absent.length > 40 ? ' …' : ''}.`));
  if (gaps.length) {
    made.push(element('h3', '', 'Missing sessions'), tall('gaps', tableOf([
      ['Ticker', tickerCell], ['Year', (row) => String(row.year)], ['Missing', number('missing')],
      ['Sessions', long((row) => `${row.days.length < row.missing ? '… ' : ''}${row.days.join(', ')}`)],
    ], gaps), 'Missing sessions'));
  }
  if (ended.length) {
    const more = ended_tickers > ended.length ? ` The latest ${ended.length} are below.` : '';
    made.push(
      element('h3', '', 'Tickers whose bars end before the newest session'), element('p', '', `${counted(ended_tickers, 'ticker')}.${more}`),
      tall('ended', tableOf([['Ticker', tickerCell], ['Last session', (row) => row.last], ['Sessions since', number('sessions')]], ended), 'Tickers that ended'),
    );
  }
  return made;
}

// ---- quarantine

function quarantine({ rows, reasons, other_reasons, newest }) {
  const made = [element('h2', '', 'Quarantine'), named('quarantine_rows', element('p', '', rows
    ? `Delivered rows that were refused: ${written(rows, 'count')}.${newestOf(newest.length, rows)}`
    : 'No delivered row was refused.'))];
  if (!rows) return made;
  made.push(barsOf('quarantine_reasons', reasons, 'rows'));
  if (other_reasons) made.push(element('p', 'name', `${counted(other_reasons, 'more reason')}.`));
  made.push(tall('quarantine_newest', tableOf([
    ['Ticker', tickerCell], ['Reasons', long((row) => row.reasons.join('; '))], ['Delivered text', long((row) => row.delivered)],
    ['File', (row) => row.file], ['Line', (row) => row.line_number], ['Landed', (row) => row.ingested_at],
  ], newest), 'Newest rows of the quarantine'));
  return made;
}

// ---- restatements

function restatements({ lines, since, recent, newest }) {
  const made = [element('h2', '', 'Restatements'), named('restatement_lines', element('p', '', lines
    ? `Published values that changed later: ${counted(lines, 'line')} of the ledger.${newestOf(newest.length, lines)}`
    : 'No published value has changed.'))];
  if (!lines) return made;
  made.push(element('h3', '', `The last 30 days, since ${since}`));
  made.push(recent.length ? named('restatements_recent', tableOf([
    ['Table', (row) => row.table], ['Cause', long((row) => row.cause)], ['Lines', number('lines')], ['Rows', number('rows')], ['Tickers', number('tickers')],
  ], recent)) : named('restatements_recent', element('p', '', 'None.')));
  made.push(element('h3', '', 'Newest lines'), tall('restatements_newest', tableOf([
    ['When', (row) => row.restated_at], ['Ticker', tickerCell], ['Session', (row) => row.date], ['Columns', long((row) => row.columns.join(', '))],
    ['Old', (row) => row.old], ['New', (row) => row.new], ['Cause', (row) => row.cause], ['Rows', number('rows')], ['Table', (row) => row.table],
  ], newest), 'Newest lines of the ledger'));
  return made;
}

// ---- splits and dividends

function actions({ kinds, newest }) {
  const all = Object.values(kinds).reduce((sum, count) => sum + count, 0);
  const made = [element('h2', '', 'Splits and dividends'), named('action_kinds', element('p', '', all
    ? `${Object.entries(kinds).map(([kind, count]) => counted(count, kind)).join(', ')}.${newestOf(newest.length, all)}`
    : 'No delivery has named one.'))];
  if (!all) return made;
  const value = (row) => {
    const cell = valueOf('td', 'value', row.value, 'price');
    cell.textContent = row.kind === 'split' ? `${DIGITS.format(row.value)} : 1` : DIGITS.format(row.value);
    return cell;
  };
  made.push(tall('actions', tableOf([
    ['Ex-date', (row) => row.ex_date], ['Ticker', tickerCell], ['Kind', (row) => row.kind], ['Value', value],
    ['Factor of earlier prices', (row) => Object.assign(valueOf('td', 'price_factor', row.price_factor), row.price_factor == null ? {} : { textContent: row.price_factor.toFixed(6) })],
    ['First seen', (row) => row.first_seen], ['', (row) => (row.late ? 'late: earlier deliveries did not know it' : '')],
  ], newest), 'Newest splits and dividends'));
  return made;
}
// ---- the warehouse, which another service has

async function askWarehouse() {
  const made = byId('warehouse');
  const say = (...content) => made.replaceChildren(element('h2', '', 'Warehouse'), ...content);
  const slow = setTimeout(() => say(element('p', '', 'Asking it …')), SLOW);
  try {
    const rows = await answer('warehouse');
    clearTimeout(slow);
    if (!rows) return made.replaceChildren(); // there is none
    const behind = rows.filter((row) => row.behind);
    const said = behind.length
      ? `⚠ ${behind.map((row) => `${row.table}: ${counted(row.behind, 'ticker-year')} to be loaded`).join('; ')}. \`stock-lakehouse warehouse\` loads them.`
      : '✓ It has every ticker-year of the lake, as the lake has it now.';
    say(element('p', '', said), tableOf([
      ['Table', (row) => row.table], ['Of', (row) => row.source], ['Rows', number('rows')], ['Ticker-years', number('ticker_years')],
      ['Loaded version', number('version')], ['Version of the lake', number('lake_version')], ['To be loaded', number('behind')],
    ], rows));
  } catch (error) {
    clearTimeout(slow);
    if (!(error instanceof OutdatedError)) say(element('p', '', `It could not be asked: ${error.message}`));
  }
}
}
