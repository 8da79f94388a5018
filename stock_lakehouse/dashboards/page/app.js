'use strict';
// What the page shows, all of it from `answer`. Delivered text is set as text and never as HTML.

const SHIFTED = 21; // sessions that an arrow key with Shift moves: about a month
const byId = (id) => document.getElementById(id);
const embedded = JSON.parse(byId('answers').textContent);

// The answer to a question. The only way of the page to its data: here it is inside the page, deflated and in Base64.
async function answer(question) {
  const bytes = Uint8Array.from(atob(embedded[question]), (character) => character.charCodeAt(0));
  const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Response(inflated).json();
}

// ---- text

const DECIMALS = new Intl.NumberFormat('en-US', { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const DIGITS = new Intl.NumberFormat('en-US', { maximumSignificantDigits: 4 });
const COMPACT = new Intl.NumberFormat('en-US', { notation: 'compact', minimumSignificantDigits: 3, maximumSignificantDigits: 4 });
const PER_CENT = new Intl.NumberFormat('en-US', { style: 'percent', minimumFractionDigits: 2 });
const CHANGE = new Intl.NumberFormat('en-US', { style: 'percent', minimumFractionDigits: 2, signDisplay: 'exceptZero' });

function written(value, unit) {
  if (value == null) return '–';
  if (unit === 'shares') return COMPACT.format(value);
  if (unit === 'change') return CHANGE.format(value);
  if (unit === 'volatility') return PER_CENT.format(value);
  return Math.abs(value) >= 1 ? DECIMALS.format(value) : DIGITS.format(value);
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text != null) made.textContent = text;
  return made;
}

// A value as people read it; its attributes have the column's name and the shortest text of the double.
function valueOf(tag, column, value, unit) {
  const made = element(tag, tag === 'td' ? 'number' : '', typeof value === 'string' ? value : written(value, unit));
  made.dataset.value = column;
  made.dataset.exact = value == null ? '' : String(value);
  return made;
}

// A table. `columns`: [heading, cell of a row]; a cell is text, or an element td.
function fillTable(id, columns, rows, className = 'short') {
  if (!rows.length) return;
  const made = element('table', 'rows');
  const head = made.createTHead().insertRow();
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const [, cell] of columns) {
      const content = cell(row);
      line.append(content instanceof Element ? content : element('td', className, content ?? '–'));
    }
  }
  columns.forEach(([heading], place) => {
    const isNumber = body.rows[0].cells[place].classList.contains('number');
    head.append(element('th', isNumber ? 'number' : '', heading));
  });
  byId(id).replaceChildren(made);
}

// ---- the charts of a ticker

let panes; // their description, from charts.py
let ticker, bars; // the ticker that is shown, and its columns
let places; // date → place in the columns
let chart, firstSeries, legends;
let shown; // place of the session whose values are shown

const colorOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Decimals of the axis: a price of 0.0123 needs more than one of 410.17.
function decimals() {
  const close = bars.close.at(-1);
  return close >= 1 ? 2 : close >= 0.01 ? 4 : 8;
}

function pointsOf(series) {
  const [column] = series.columns;
  return bars.date.map((time, place) => {
    if (series.kind === 'candles') {
      // A bar of which only the close is known is drawn flat at the close; the legend says which values are unknown.
      const close = bars.close[place];
      const [open, high, low] = ['open', 'high', 'low'].map((name) => bars[name][place] ?? close);
      return { time, open, high, low, close };
    }
    const value = bars[column][place];
    if (value == null) return { time };
    const color = colorOf(series.kind === 'signed_bars' && value < 0 ? 'down' : series.color);
    return { time, value, color: series.kind === 'bars' ? `${color}99` : color }; // bars recede behind their average
  });
}

function marksOf(pane) {
  const found = pane.marks.flatMap((mark) =>
    bars.date.flatMap((time, place) => {
      const value = bars[mark.column][place];
      const isMarked = value != null && value !== mark.absent && value !== bars[mark.column][place - 1];
      const look = { position: mark.position, shape: mark.shape, color: colorOf(mark.color) };
      return isMarked ? [{ time, text: mark.text.replace('{}', DIGITS.format(value)), ...look }] : [];
    }),
  );
  return found.sort((one, other) => (one.time < other.time ? -1 : 1));
}

function addSeries(pane, place, series) {
  const { CandlestickSeries, HistogramSeries, LineSeries, LineStyle } = LightweightCharts;
  const kind = { candles: CandlestickSeries, bars: HistogramSeries, signed_bars: HistogramSeries }[series.kind] ?? LineSeries;
  const price = { type: 'price', precision: decimals(), minMove: 10 ** -decimals() };
  const made = chart.addSeries(kind, {
    color: colorOf(series.color), lineWidth: series.kind === 'dashed' ? 1 : 2, lineStyle: series.kind === 'dashed' ? LineStyle.Dotted : LineStyle.Solid,
    upColor: colorOf('up'), wickUpColor: colorOf('up'), downColor: colorOf('down'), wickDownColor: colorOf('down'),
    borderVisible: false, priceLineVisible: false, crosshairMarkerVisible: false, lastValueVisible: series.kind === 'candles',
    priceFormat: { price, shares: { type: 'volume' }, percent: { type: 'price', precision: 0, minMove: 1 } }[pane.unit],
    autoscaleInfoProvider: (original) => {
      const info = original();
      if (info?.priceRange) {
        info.priceRange.minValue = Math.min(info.priceRange.minValue, ...pane.lines);
        info.priceRange.maxValue = Math.max(info.priceRange.maxValue, ...pane.lines);
      }
      return info;
    },
  }, place);
  made.setData(pointsOf(series));
  return made;
}

function draw() {
  chart?.remove();
  const { createChart, createSeriesMarkers, CrosshairMode, LineStyle } = LightweightCharts;
  chart = createChart(byId('canvas'), {
    autoSize: true,
    layout: {
      background: { color: colorOf('paper') }, textColor: colorOf('faint'), fontFamily: getComputedStyle(document.body).fontFamily,
      panes: { separatorColor: colorOf('rule'), enableResize: false },
    },
    grid: { vertLines: { color: colorOf('rule') }, horzLines: { color: colorOf('rule') } },
    crosshair: { mode: CrosshairMode.Normal },
    rightPriceScale: { borderColor: colorOf('rule'), minimumWidth: 64 },
    timeScale: { borderColor: colorOf('rule'), minBarSpacing: 0.1, lockVisibleTimeRangeOnResize: true },
    localization: { locale: 'en-US', dateFormat: 'yyyy-MM-dd' },
    handleScroll: { vertTouchDrag: false }, // a finger that moves up and down scrolls the page
  });
  firstSeries = undefined;
  panes.forEach((pane, place) => {
    const [first, ...others] = pane.series.map((series) => addSeries(pane, place, series));
    firstSeries ??= first;
    for (const price of pane.lines) {
      first.createPriceLine({ price, color: colorOf('grey'), lineWidth: 1, lineStyle: LineStyle.Dashed, axisLabelVisible: false });
    }
    if (pane.marks.length) createSeriesMarkers(first, marksOf(pane));
    const isVolume = pane.unit === 'shares'; // bars stand on the ground
    for (const series of [first, ...others]) {
      const scaleMargins = { top: place ? 0.25 : 0.1, bottom: isVolume ? 0 : 0.08 };
      series.priceScale().applyOptions({ scaleMargins, entireTextOnly: true });
    }
    chart.panes()[place].setStretchFactor(pane.share);
  });
  chart.subscribeCrosshairMove(({ time }) => show(places.get(time) ?? bars.date.length - 1));
  setRange();
  placeLegends();
}

// A pane's place is known once it is laid out, in the next frame.
function placeLegends() {
  requestAnimationFrame(() => requestAnimationFrame(() => {
    const top = byId('chart').getBoundingClientRect().top;
    chart.panes().forEach((pane, place) => {
      const found = pane.getHTMLElement();
      if (found) legends[place].style.top = `${found.getBoundingClientRect().top - top + 4}px`;
    });
    document.body.dataset.drawn = ticker;
  }));
}

// Show the values of a session in the legends and beside the ticker.
function show(place) {
  shown = place;
  const day = byId('day');
  const date = valueOf('b', 'date', bars.date[place]);
  day.replaceChildren(date);
  const add = (label, value) => {
    const item = element('span', '', '');
    item.append(element('span', 'name', label), ' ', value);
    day.append(item);
  };
  for (const column of panes[0].series[0].columns) add(column[0].toUpperCase(), valueOf('b', column, bars[column][place], 'price'));
  const moved = valueOf('b', 'return_1d', bars.return_1d[place], 'change');
  moved.style.color = `var(--${bars.return_1d[place] < 0 ? 'down' : 'up'})`;
  day.append(moved);
  let isSignal = false;
  for (const mark of panes.flatMap((pane) => pane.marks)) {
    const value = bars[mark.column][place];
    if (value == null || value === mark.absent) continue;
    isSignal ||= mark.absent === false;
    const made = valueOf('span', mark.column, value);
    made.className = 'mark';
    made.style.color = `var(--${mark.color})`;
    made.textContent = value === true ? mark.label : `${mark.label} ${DIGITS.format(value)}`;
    day.append(made);
  }
  if (isSignal && bars.tradable_from[place]) add('tradable from', valueOf('b', 'tradable_from', bars.tradable_from[place]));
  if (bars.bar_status[place] === 'provisional') day.append(element('span', 'mark', 'provisional bar'));
  panes.forEach((pane, number) => {
    legends[number].replaceChildren(element('span', 'title', pane.title));
    for (const series of pane.series) {
      if (series.kind === 'candles') continue; // its values are beside the ticker
      const name = element('span', '', `${series.label} `);
      name.style.color = `var(--${series.color})`;
      name.append(valueOf('b', series.columns[0], bars[series.columns[0]][place], pane.unit));
      legends[number].append(name);
    }
  });
}

// Show the months of the pressed button, up to the newest session.
function setRange() {
  const { months } = byId('ranges').querySelector('[aria-pressed="true"]').dataset;
  let first = 0;
  if (months) {
    const since = new Date(bars.date.at(-1));
    since.setUTCMonth(since.getUTCMonth() - Number(months));
    first = bars.date.findIndex((date) => date >= since.toISOString().slice(0, 10));
  }
  chart.timeScale().setVisibleLogicalRange({ from: first, to: bars.date.length + 1 });
}

function moveCrosshair(sessions) {
  const place = Math.min(Math.max(shown + sessions, 0), bars.date.length - 1);
  const range = chart.timeScale().getVisibleLogicalRange();
  const shift = place < range.from ? place - range.from - 1 : place > range.to ? place - range.to + 1 : 0;
  if (shift) chart.timeScale().setVisibleLogicalRange({ from: range.from + shift, to: range.to + shift });
  chart.setCrosshairPosition(bars.close[place], bars.date[place], firstSeries);
  show(place);
}

async function openTicker(name) {
  const found = await answer(`bars/${name}`);
  if (byId('tickers').value !== name) return; // another one was chosen meanwhile
  const hasBars = found.date.length > 0;
  for (const id of ['chart', 'key', 'day', 'ranges']) byId(id).hidden = !hasBars;
  byId('empty').hidden = hasBars;
  byId('empty').textContent = `The lake has no session of ${name} since ${byId('about').dataset.first}.`;
  if (!hasBars) return;
  [ticker, bars, places] = [name, found, new Map(found.date.map((date, place) => [date, place]))];
  draw();
  show(bars.date.length - 1);
}

// ---- tables

function fillSignals(rows, charted) {
  const tickerOf = (row) => {
    const cell = element('td', 'short');
    if (!charted.includes(row.ticker)) {
      cell.textContent = row.ticker;
      return cell;
    }
    const button = element('button', '', row.ticker);
    button.type = 'button';
    button.addEventListener('click', () => {
      byId('tickers').value = row.ticker;
      openView('ticker');
      openTicker(row.ticker);
    });
    cell.append(button);
    return cell;
  };
  const number = (column, unit) => (row) => valueOf('td', column, row[column], unit);
  fillTable('signals_table', [
    ['Ticker', tickerOf], ['Latest signal', (row) => row.signal], ['on', (row) => row.signal_date],
    ['tradable from', (row) => row.tradable_from], ['Newest session', (row) => row.date],
    ['Close', number('close', 'price')], ['Change', number('return_1d', 'change')], ['RSI 14', number('rsi_14')],
    ['MACD histogram', number('macd_hist')], ['Volatility 20', number('volatility_20', 'volatility')],
  ], rows);
}

function fillData({ tables, quarantine, restatements }) {
  const count = (column) => (row) => {
    const cell = valueOf('td', column, row[column]);
    cell.textContent = row[column].toLocaleString('en-US');
    return cell;
  };
  const long = (cell) => (row) => element('td', 'text', cell(row));
  fillTable('data_tables', [
    ['Table', (row) => row.table], ['Rows', count('rows')], ['Last session', (row) => row.last], ['', long((row) => row.description)],
  ], tables);
  const some = (shownRows, rows) => (shownRows < rows ? `; the newest ${shownRows} are below` : '');
  byId('quarantine_rows').textContent = quarantine.rows
    ? `Delivered rows that were refused: ${quarantine.rows.toLocaleString('en-US')}${some(quarantine.newest.length, quarantine.rows)}.`
    : 'No delivered row was refused.';
  fillTable('quarantine_reasons', [['Reason', long(([reason]) => reason)], ['Rows', (row) => count(1)(row)]], quarantine.reasons);
  fillTable('quarantine_newest', [
    ['Ticker', (row) => row.ticker], ['Reasons', long((row) => row.reasons.join('; '))], ['Delivered text', long((row) => row.delivered)],
    ['File', (row) => row.file], ['Line', (row) => row.line_number], ['Landed', (row) => row.ingested_at],
  ], quarantine.newest);
  byId('restatement_lines').textContent = restatements.lines
    ? `Lines of the ledger: ${restatements.lines.toLocaleString('en-US')}${some(restatements.newest.length, restatements.lines)}.`
    : 'No published value has changed.';
  fillTable('restatements_newest', [
    ['When', (row) => row.restated_at], ['Ticker', (row) => row.ticker], ['Session', (row) => row.date],
    ['Columns', long((row) => row.columns.join(', '))], ['Old', (row) => row.old], ['New', (row) => row.new],
    ['Cause', (row) => row.cause], ['Rows', count('rows')], ['Table', (row) => row.table],
  ], restatements.newest);
}

// ---- the page

function openView(name) {
  for (const button of document.querySelectorAll('nav button')) {
    button.setAttribute('aria-pressed', String(button.dataset.view === name));
    byId(button.dataset.view).hidden = button.dataset.view !== name;
  }
}

function listen() {
  for (const button of document.querySelectorAll('nav button')) button.addEventListener('click', () => openView(button.dataset.view));
  const ranges = [...byId('ranges').children];
  for (const button of ranges) {
    button.addEventListener('click', () => {
      for (const other of ranges) other.setAttribute('aria-pressed', String(other === button));
      setRange();
    });
  }
  byId('tickers').addEventListener('change', ({ target }) => {
    openTicker(target.value);
    byId('chart').focus(); // so that the arrow keys move the crosshair
  });
  document.addEventListener('keydown', (event) => {
    const isDrawn = chart && byId('chart').offsetParent; // an element that is not displayed has no such parent
    if (!isDrawn || event.target.matches('select') || event.ctrlKey || event.altKey || event.metaKey) return;
    const step = event.shiftKey ? SHIFTED : 1;
    const sessions = { ArrowLeft: -step, ArrowRight: step, Home: -Infinity, End: Infinity }[event.key];
    if (sessions === undefined) return;
    event.preventDefault();
    moveCrosshair(sessions);
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    if (!chart) return;
    draw();
    show(shown);
  });
  new ResizeObserver(() => chart && placeLegends()).observe(byId('chart'));
}

async function start() {
  const [about, described, signals, data] = await Promise.all(['about', 'charts', 'signals', 'data'].map(answer));
  panes = described;
  legends = panes.map(() => element('div', 'legend'));
  byId('chart').append(...legends);
  const some = about.tickers.length < about.tickers_in_lake ? `${about.tickers.length} of ${about.tickers_in_lake}` : about.tickers.length;
  byId('about').textContent = `${some} tickers, to ${about.last}; made ${about.made_at}`;
  byId('about').title = about.lake;
  byId('about').dataset.first = about.first;
  byId('tickers').append(...about.tickers.map((name) => new Option(name)));
  byId('key').append(...panes.flatMap((pane) => pane.marks).map((mark) => {
    const sign = { arrowUp: '↑', arrowDown: '↓', circle: '●', square: '■' }[mark.shape];
    const item = element('span', '', '');
    const drawn = element('span', '', `${sign}${mark.text.replace('{}', '4')}`);
    drawn.style.color = `var(--${mark.color})`;
    item.append(drawn, ` ${mark.label}`);
    return item;
  }));
  fillSignals(signals, about.tickers);
  fillData(data);
  await openTicker(about.tickers[0]);
  listen();
}

start().catch((error) => {
  byId('failure').hidden = false;
  byId('failure').textContent = `The page could not be drawn (${error.message}). It needs a browser of 2023 or newer.`;
  throw error;
});
