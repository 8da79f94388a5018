'use strict';
// The page Run, in the report of a run: what it did, what its checks found, what it changed, and what the market's newest session has.

{
const SPARK = 120; // sessions of a small chart
const SHORT = 12; // columns of a ledger line that are listed
const NARROW = 40; // characters of a cell whose line is not broken
const SIGNS = { succeeded: '✓', failed: '✗', skipped: '–', 'in progress': '…', 'not started': '·' };
const ENDS = { cancelled: 'was cancelled', 'in progress': 'is in progress' };

pages.run = {
  title: 'Run',
  hasNoRange: true,
  isShown: () => Boolean(embedded?.run),

  build(section) {
    this.section = section;
  },

  async open() {
    const found = await answer('run');
    // Made whole before it is shown: a chart of a ticker is an answer of its own.
    const charts = await chartsOf(found.newest);
    this.section.replaceChildren(
      ...head(found), ...checksOf(found.checks), ...newestOf(found.newest), ...charts, ...restatedOf(found.restated),
      ...quarantinedOf(found.quarantined), ...tablesOf(found.tables), ...stepsOf(found), ...othersOf(found.others),
    );
  },
};

const count = (value) => written(value, 'count');
const counted = (value, noun) => `${count(value)} ${noun}${value === 1 ? '' : 's'}`;
const heading = (text) => element('h2', '', text);
const long = (cell) => (row) => element('td', 'text', cell(row));
const number = (column, unit = 'count') => (row) => valueOf('td', column, row[column], unit);
const cellOf = (text) => element('td', (text ?? '').length > NARROW ? 'text' : 'short', text ?? '');
// A table of rows whose columns are not known before, as those of a check's findings.
const tableOfRows = (rows) => tableOf([...new Set(rows.flatMap((row) => Object.keys(row)))].map((name) => [name, (row) => cellOf(row[name])]), rows);
const named = (id, made) => Object.assign(made, { id });

// 4.478 → 4.5 s, 754 → 12 min 34 s.
function duration(seconds) {
  if (seconds == null) return UNKNOWN;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const whole = Math.round(seconds);
  const parts = [[3600, 'h'], [60, 'min'], [1, 's']].map(([unit, name], place, units) => [Math.floor((place ? whole % units[place - 1][0] : whole) / unit), name]);
  return parts.filter(([value]) => value).slice(0, 2).map(([value, name]) => `${value} ${name}`).join(' ');
}

// A value with the digits that people read; all of them are in its title.
function shortValue(text) {
  const value = Number(text);
  const made = element('td', 'number', text == null ? UNKNOWN : Number.isFinite(value) && text !== '' ? written(value) : text);
  if (text != null) made.title = text;
  made.dataset.exact = text ?? '';
  return made;
}

function tile(label, value, look = '') {
  return element('div', `tile ${look}`, element('b', '', value), element('span', '', label));
}

function head({ run, checks, tables, restated, quarantined }) {
  const open = checks.filter((check) => !check.passed);
  const grave = open.some((check) => check.severity === 'ERROR');
  const changed = tables.filter((table) => table.corrected != null);
  const sum = (name) => Math.max(0, ...changed.map((table) => table[name]));
  const title = element('h2', run.outcome === 'failed' ? 'bad' : '', `Run ${run.id.slice(0, 8)} ${ENDS[run.outcome] ?? run.outcome}`);
  title.id = 'run_title';
  const line = element('p', 'name', [run.covers, run.started, run.seconds != null && `took ${duration(run.seconds)}`, `requested by ${run.launched_by}`].filter(Boolean).join(' · '));
  const made = element('div', 'tiles',
    tile(open.length ? 'checks want attention' : 'checks passed', open.length ? `${open.length} of ${checks.length}` : count(checks.length), grave ? 'bad' : open.length ? 'warn' : 'good'),
    tile('rows added', count(sum('added'))), tile('rows corrected', count(sum('corrected'))), tile('rows withdrawn', count(sum('withdrawn'))),
    tile('lines in the ledger', count(restated.lines), restated.lines ? 'warn' : ''),
    tile('rows into quarantine', count(quarantined.rows), quarantined.rows ? 'warn' : ''),
  );
  const error = run.error ? [element('pre', 'bad', run.error)] : [];
  return [title, line, ...error, named('run_tiles', made)];
}

function checksOf(checks) {
  const open = checks.filter((check) => !check.passed).sort((one, other) => (one.severity > other.severity ? 1 : one.severity < other.severity ? -1 : 0));
  const passed = checks.filter((check) => check.passed);
  const boxes = open.map((check) => {
    const grave = check.severity === 'ERROR';
    const shown = check.check === 'quarantine' ? 0 : check.rows.length; // the rows of the quarantine have a section of their own
    const more = (check.found ?? shown) - shown;
    return element('div', `check ${grave ? 'bad' : 'warn'}`,
      element('p', '', element('b', '', `${grave ? '✗ Error' : '⚠ Warning'}: ${check.asset}, ${check.check}`), check.found == null ? '' : ` (${counted(check.found, 'finding')})`),
      check.description && element('p', '', check.description),
      check.to_do && element('p', '', element('b', '', 'To do: '), check.to_do),
      shown ? tableOfRows(check.rows) : null,
      more > 0 && shown ? element('p', 'name', `… and ${count(more)} more`) : null,
    );
  });
  const rest = element('details', '', element('summary', '', `${counted(passed.length, 'check')} passed`),
    tableOf([['Asset', (row) => row.asset], ['Checks', long((row) => row.checks.join(', '))]], byAsset(passed)));
  return [heading('Checks'), named('run_checks', element('div', '', ...boxes, passed.length ? rest : null, checks.length ? null : 'The run evaluated no check.'))];
}

function byAsset(checks) {
  const found = new Map();
  for (const { asset, check } of checks) found.set(asset, [...(found.get(asset) ?? []), check]);
  return [...found].map(([asset, names]) => ({ asset, checks: names }));
}

function stepsOf({ steps, run }) {
  const whole = Math.max(run.seconds ?? 0, ...steps.map(({ start, seconds }) => (start ?? 0) + (seconds ?? 0)), 0.001);
  const rows = steps.map((step) => {
    const bar = element('i', `bar-of-step ${step.status === 'failed' ? 'failed' : step.layer ?? 'serving'}`);
    bar.style.marginLeft = `${(100 * (step.start ?? 0)) / whole}%`;
    bar.style.width = `${(100 * (step.seconds ?? 0)) / whole}%`;
    bar.hidden = step.start == null;
    const times = [duration(step.seconds), step.attempts > 1 && `${step.attempts} attempts`].filter(Boolean).join(', ');
    const row = element('div', 'step',
      element('span', step.status === 'failed' ? 'bad' : '', `${SIGNS[step.status]} ${step.name}`),
      element('span', 'lane', bar), element('span', 'number', step.start == null ? step.status : times));
    row.dataset.step = step.name;
    row.dataset.status = step.status;
    row.title = `${step.name} ${step.status}${step.start == null ? '' : `; began after ${duration(step.start)}`}`;
    return step.error ? [row, element('pre', 'bad', step.error)] : [row];
  });
  return [heading('Steps'), named('run_steps', element('div', '', ...rows.flat()))];
}

function tablesOf(tables) {
  if (!tables.length) return [];
  return [heading('Tables'), named('run_tables', tableOf([
    ['Table', (row) => row.table], ['Rows before', number('before')], ['added', number('added')], ['corrected', number('corrected')],
    ['withdrawn', number('withdrawn')], ['Rows after', number('after')], ['Version', number('version')],
  ], tables))];
}

function restatedOf({ lines, by_cause, first }) {
  const parts = [heading('Restated values')];
  if (!lines) return [...parts, element('p', '', 'The run changed no value that was published before.')];
  const columns = ({ columns: names }) => (names.length > SHORT ? `${names.slice(0, SHORT).join(', ')} and ${names.length - SHORT} more` : names.join(', '));
  return [...parts,
    named('run_causes', element('p', '', by_cause.map(([table, cause, ledger, rows]) => `${table}: ${counted(ledger, 'line')} for ${counted(rows, 'row')}, ${cause ?? 'cause unknown'}`).join('; '), '.')),
    named('run_restated', tableOf([
      ['Table', (row) => row.table], ['Ticker', (row) => row.ticker], ['Session', (row) => row.date], ['Columns', long(columns)],
      ['Old', (row) => shortValue(row.old)], ['New', (row) => shortValue(row.new)], ['Rows', number('rows')], ['Cause', (row) => row.cause],
    ], first)),
    lines > first.length ? element('p', 'name', `The first ${first.length} of ${counted(lines, 'line')}; the table restatements has all.`) : '',
  ];
}

function quarantinedOf({ rows, by_reason, first }) {
  const parts = [heading('Quarantine')];
  if (rows == null) return [...parts, element('p', '', 'The run did not classify delivered rows.')];
  if (!rows) return [...parts, element('p', '', 'The run put no delivered row into quarantine.')];
  return [...parts,
    named('run_reasons', tableOf([['Reason', long(([reason]) => reason)], ['Rows', (row) => valueOf('td', 'rows', row[1], 'count')]], by_reason)),
    named('run_quarantined', tableOfRows(first)),
    rows > first.length ? element('p', 'name', `The first ${first.length} of ${counted(rows, 'row')}; the table processed_quarantine has all.`) : '',
  ];
}

const isCharted = (ticker) => about.tickers.includes(ticker);

function newestOf({ session, tickers, signals }) {
  if (!session) return [heading('Signals'), element('p', '', 'The lake has no features yet.')];
  const parts = [heading(`Signals of ${session}`)];
  if (!signals.length) return [...parts, element('p', '', `None of ${counted(tickers, 'ticker')} has a cross or a signal on the newest session.`)];
  return [...parts, named('run_signals', tableOf([
    ['Ticker', ({ ticker }) => element('td', 'short', isCharted(ticker) ? linkTo({ page: 'ticker', ticker }, ticker) : ticker)],
    ['Signal', (row) => row.signals.join(', ')], ['Close', number('close', 'price')], ['Change', number('return_1d', 'change')],
    ['RSI 14', number('rsi_14', 'price')], ['Tradable from', (row) => row.tradable_from],
  ], signals))];
}

async function chartsOf({ session }) {
  if (!session || !about.tickers.length) return [];
  const boxes = await Promise.all(about.tickers.map(async (ticker) => {
    const { close, return_1d: moves, date } = await answer(`bars/${encodeURIComponent(ticker)}`);
    if (!close.length) return '';
    const link = linkTo({ page: 'ticker', ticker });
    link.className = 'card';
    const move = element('span', moves.at(-1) < 0 ? 'down' : 'up', written(moves.at(-1), 'change'));
    link.append(element('span', '', element('b', '', ticker), ` ${written(close.at(-1))} `, move), spark(close.slice(-SPARK)), element('span', 'name', date.at(-1)));
    link.dataset.ticker = ticker;
    return link;
  }));
  const some = about.tickers_in_lake > about.tickers.length ? ', those with a signal first, then the largest moves' : '';
  return [heading(`Charts: ${about.tickers.length} of ${counted(about.tickers_in_lake, 'ticker')}${some}`), named('run_charts', element('div', 'cards', ...boxes))];
}

// The closes as a line, without axes.
function spark(closes) {
  const known = closes.filter((close) => close != null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const place = (close, at) => `${((160 * at) / Math.max(closes.length - 1, 1)).toFixed(1)},${(38 - (36 * (close - low)) / (high - low || 1)).toFixed(1)}`;
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 160 40');
  svg.setAttribute('aria-hidden', 'true');
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
  line.setAttribute('points', closes.flatMap((close, at) => (close == null ? [] : [place(close, at)])).join(' '));
  svg.append(line);
  return svg;
}

function othersOf(others) {
  if (!others.length) return [];
  return [heading('What else the run made'), named('run_others', tableOf([['Asset', (row) => row.asset], ['', long((row) => row.facts)]], others))];
}
}
