'use strict';
// The page Compare: the total return of several tickers, 100 at the first session that all have, and the figures of each.

{
const MOST = 50; // tickers
const FIRST = 6; // tickers that are compared before any was chosen
const LABELLED = 12; // with more lines, labels at their ends would cover one another
const COLORS = 8; // --series_1 to --series_8 in style.css; the ninth line has the first colour again, and another stroke
const POINTS = { daily: 21, weekly: 4 }; // about a month: what an arrow key with Shift moves

let parts; // the page's elements
let found; // the answer
let chart, lines; // lines: the series of each ticker
let rows; // the legend's elements of each ticker
let places; // date → place of the point
let place; // of the point whose values are shown
let figures; // the table

const BASES = {
  total_return: 'with dividends', total_return_delivered: 'with dividends as delivered', price_return: 'without dividends',
};
const COLUMNS = [
  { name: 'ticker', heading: 'Ticker', cell: ({ ticker }) => element('td', 'short', swatch(ticker), linkTo({ page: 'ticker', ticker }, ticker)) },
  { name: 'total_return', heading: 'Total return', unit: 'change' },
  { name: 'annual_return', heading: 'Annualised', unit: 'change', title: 'Compound annual growth rate; of less than a year none is given' },
  { name: 'volatility', heading: 'Volatility', unit: 'fraction', title: 'Sample deviation of the returns from session to session, times √252' },
  { name: 'max_drawdown', heading: 'Max. drawdown', unit: 'change', title: 'The deepest fall from the highest value before' },
  { name: 'peak', heading: 'Peak', title: 'Session of the highest value before the deepest fall' },
  { name: 'trough', heading: 'Trough', title: 'Session of the lowest value of the deepest fall' },
  { name: 'recovered', heading: 'Recovered', title: 'First session after it that was as high as before' },
  { name: 'last', heading: 'Last session' },
  { name: 'price_bases', heading: 'Returns', value: ({ price_bases }) => basisOf(price_bases), cell: ({ price_bases }) => basisOf(price_bases) },
];

pages.compare = {
  title: 'Compare',
  isShown: () => !embedded, // a file would need an answer for every choice of tickers
  keys: [
    ['← →', 'the crosshair moves by a point, with Shift by a month'], ['Home, End', 'to the first, the last point'], ['+ −', 'zoom'],
    ['L', 'logarithmic scale'],
  ],

  build(section) {
    parts = {
      chips: element('ul', 'chips'), said: element('p', 'said'), warned: element('p', 'said warned'), canvas: element('div', 'canvas'),
      legend: element('ul', 'lines'), chart: element('div', 'drawing'), log: button('Log', () => setLog(!isLog())),
      input: element('input', ''), all: button('All', () => choose(about.tickers)),
    };
    Object.assign(parts.input, { size: 8, maxLength: 400, placeholder: 'Add', autocomplete: 'off', spellcheck: false });
    parts.input.setAttribute('list', 'tickers');
    parts.input.setAttribute('aria-label', 'Tickers to add');
    parts.chips.setAttribute('aria-label', 'Compared tickers');
    parts.log.title = 'Logarithmic scale (L)';
    parts.chart.tabIndex = 0;
    parts.chart.setAttribute('role', 'group');
    parts.chart.setAttribute('aria-label', 'Chart of total return; the arrow keys move the crosshair by a point, with Shift by a month');
    parts.chart.append(parts.canvas);
    parts.legend.setAttribute('aria-label', 'Values at the crosshair, highest first');
    parts.legend.tabIndex = 0; // it scrolls
    const form = element('form', 'add', parts.input, element('button', '', 'Add'));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      const added = parts.input.value.toUpperCase().split(/[\s,;]+/).filter(Boolean);
      parts.input.value = '';
      if (added.length) choose([...chosen(), ...added]);
    });
    figures = sortableTable(COLUMNS, 'Figures of each ticker');
    section.append(
      element('div', 'bar', parts.chips, form, parts.all, parts.log), parts.warned, parts.said,
      element('div', 'beside', parts.chart, parts.legend), figures.box,
    );
  },

  async open({ range }) {
    const tickers = chosen();
    const months = RANGES[range];
    const since = Number.isFinite(months) ? `&since=${monthsBefore(about.last, months)}` : '';
    const list = tickers.map(encodeURIComponent).join(',');
    found = await answer(`compare?tickers=${list}${since}`);
    drawChips(tickers);
    tellOf(found);
    const isDrawn = found.date.length > 0;
    for (const part of [parts.chart, parts.legend, figures.box, parts.log]) part.hidden = !isDrawn;
    parts.chart.dataset.drawn = '';
    if (!isDrawn) return;
    draw();
    figures.fill(found.figures);
  },

  key(event) {
    if (parts.chart.hidden || !chart) return false;
    const step = event.shiftKey ? POINTS[found.sampling] : 1;
    const moved = { ArrowLeft: -step, ArrowRight: step, Home: -Infinity, End: Infinity }[event.key];
    const zoom = { '+': 0.8, '=': 0.8, '-': 1.25 }[event.key];
    if (event.target === parts.legend && /^(Home|End)$/.test(event.key)) return false;
    if (moved !== undefined) moveCrosshair(moved);
    else if (zoom) zoomBy(zoom);
    else if (event.key === 'l' || event.key === 'L') setLog(!isLog());
    else return false;
    return true;
  },

  redraw() {
    if (!chart || parts.chart.hidden) return;
    const range = chart.timeScale().getVisibleLogicalRange();
    draw();
    chart.timeScale().setVisibleLogicalRange(range);
  },
};

// ---- which tickers

function chosen() {
  if (state.tickers) return [...new Set(state.tickers.split(',').filter(Boolean))];
  return [...new Set([state.ticker, ...about.tickers])].filter((name) => about.tickers.includes(name)).slice(0, FIRST);
}

function choose(tickers) {
  const wanted = [...new Set(tickers)];
  go({ tickers: wanted.slice(0, MOST).join(',') });
  if (wanted.length > MOST) tell(`At most ${MOST} tickers are compared; ${wanted.slice(MOST).join(', ')} left out.`);
}

function drawChips(tickers) {
  const absent = new Set(found.absent.map(({ ticker }) => ticker));
  parts.chips.replaceChildren(...tickers.map((ticker) => {
    const chip = element('li', absent.has(ticker) ? 'absent' : '', absent.has(ticker) ? null : swatch(ticker), ticker);
    if (tickers.length > 1) {
      const remove = button('×', () => {
        parts.input.focus(); // the pressed button goes away
        choose(tickers.filter((name) => name !== ticker));
      });
      remove.setAttribute('aria-label', `Remove ${ticker}`);
      chip.append(remove);
    }
    return chip;
  }));
  parts.all.hidden = about.tickers.length > MOST || about.tickers.every((name) => tickers.includes(name));
}

function tellOf({ absent, disjoint, first, last, starts_with, sampling, figures: rows_of_figures }) {
  const said = [];
  if (first) said.push(`Total return, 100 on ${first}${starts_with ? `, the first session of ${starts_with} in this range` : ''}.`);
  if (first && first === last) said.push('There is no later session in this range.');
  if (sampling === 'weekly') said.push('One point a week; the figures are of all sessions.');
  if (disjoint) {
    said.push(`No session is common to all: ${disjoint.ends.ticker} ends on ${disjoint.ends.last}, ${disjoint.begins.ticker} begins on ${disjoint.begins.first}. Remove one of them.`);
  }
  for (const { ticker, first: from, last: to } of absent) {
    said.push(to ? `${ticker} has no session in this range; its sessions are ${from} to ${to}.` : `The lake has no bars of ${ticker}${state.as_of ? ' then' : ''}.`);
  }
  parts.said.textContent = said.join(' ');
  const bases = new Map();
  for (const { ticker, price_bases } of rows_of_figures) {
    const basis = basisOf(price_bases);
    bases.set(basis, [...(bases.get(basis) ?? []), ticker]);
  }
  const isMixed = bases.size > 1;
  parts.warned.hidden = !isMixed;
  parts.warned.textContent = isMixed
    ? `These returns do not compare: ${[...bases].map(([basis, tickers]) => `${tickers.join(', ')} ${basis}`).join('; ')}.`
    : '';
}

const basisOf = (bases) => bases.map((basis) => BASES[basis] ?? basis).join(', then ');

// ---- the chart

const colorNumber = (ticker) => (found.tickers.indexOf(ticker) % COLORS) + 1;

// A short stroke in the ticker's colour, as its line has it.
function swatch(ticker) {
  const made = element('span', `swatch stroke_${strokeOf(ticker)}`);
  made.style.borderTopColor = `var(--series_${colorNumber(ticker)})`;
  return made;
}

// 0: solid, then dotted, dashed and others: the numbers of LightweightCharts.LineStyle.
const strokeOf = (ticker) => Math.floor(found.tickers.indexOf(ticker) / COLORS) % 5;

const isLog = () => state.log === '1';

function setLog(isWanted) {
  note({ log: isWanted ? '1' : '' });
  setScale();
}

function setScale() {
  const { Logarithmic, Normal } = LightweightCharts.PriceScaleMode;
  parts.log.setAttribute('aria-pressed', String(isLog()));
  chart?.priceScale('right').applyOptions({ mode: isLog() ? Logarithmic : Normal });
}

function draw() {
  chart?.remove();
  const { createChart, CrosshairMode, LineSeries, LineStyle } = LightweightCharts;
  chart = createChart(parts.canvas, {
    autoSize: true,
    layout: { background: { color: colorOf('paper') }, textColor: colorOf('faint'), fontFamily: getComputedStyle(document.body).fontFamily },
    grid: { vertLines: { color: colorOf('rule') }, horzLines: { color: colorOf('rule') } },
    crosshair: { mode: CrosshairMode.Normal },
    rightPriceScale: { borderColor: colorOf('rule'), minimumWidth: 56 },
    timeScale: { borderColor: colorOf('rule'), minBarSpacing: 0.05, lockVisibleTimeRangeOnResize: true },
    localization: { locale: 'en-US', dateFormat: 'yyyy-MM-dd' },
    handleScroll: { vertTouchDrag: false }, // a finger that moves up and down scrolls the page
  });
  const isLabelled = found.tickers.length <= LABELLED;
  lines = new Map(found.tickers.map((ticker) => {
    const series = chart.addSeries(LineSeries, {
      color: colorOf(`series_${colorNumber(ticker)}`), lineWidth: 2, lineStyle: strokeOf(ticker), title: isLabelled ? ticker : '',
      lastValueVisible: isLabelled, priceLineVisible: false, crosshairMarkerVisible: false,
      priceFormat: { type: 'price', precision: 1, minMove: 0.1 },
    });
    series.setData(found.date.map((time, at) => (found.indexed[ticker][at] == null ? { time } : { time, value: found.indexed[ticker][at] })));
    return [ticker, series];
  }));
  const [first] = lines.values();
  first.createPriceLine({ price: 100, color: colorOf('grey'), lineWidth: 1, lineStyle: LineStyle.Dashed, axisLabelVisible: false });
  rows = new Map(found.tickers.map((ticker) => {
    const row = element('li', '', swatch(ticker), element('span', '', ticker), valueOf('b', 'indexed', null));
    row.dataset.ticker = ticker;
    row.addEventListener('pointerenter', () => emphasise(ticker));
    row.addEventListener('pointerleave', () => emphasise());
    return [ticker, row];
  }));
  places = new Map(found.date.map((date, at) => [date, at]));
  chart.subscribeCrosshairMove(({ time }) => show(places.get(time) ?? found.date.length - 1));
  setScale();
  chart.timeScale().fitContent();
  show(found.date.length - 1);
  parts.chart.dataset.drawn = `${found.tickers.join(',')} ${state.range}`;
}

// Make one line thicker, or none.
function emphasise(ticker) {
  for (const [name, series] of lines) series.applyOptions({ lineWidth: name === ticker ? 4 : 2 });
}

// Show the values of a point in the legend, the highest first.
function show(at) {
  place = at;
  const values = found.tickers.map((ticker) => ({ ticker, value: found.indexed[ticker][at] }));
  values.sort((one, other) => (other.value ?? -Infinity) - (one.value ?? -Infinity));
  const date = element('li', 'date', valueOf('b', 'date', found.date[at]));
  for (const { ticker, value } of values) {
    const shown = rows.get(ticker).lastChild;
    shown.textContent = value == null ? UNKNOWN : DECIMALS.format(value);
    shown.dataset.exact = value ?? '';
  }
  parts.legend.replaceChildren(date, ...values.map(({ ticker }) => rows.get(ticker)));
}

function zoomBy(factor) {
  const { from, to } = chart.timeScale().getVisibleLogicalRange();
  chart.timeScale().setVisibleLogicalRange({ from: to - (to - from) * factor, to });
}

function moveCrosshair(points) {
  const at = Math.min(Math.max(place + points, 0), found.date.length - 1);
  const range = chart.timeScale().getVisibleLogicalRange();
  const shift = at < range.from ? at - range.from - 1 : at > range.to ? at - range.to + 1 : 0;
  if (shift) chart.timeScale().setVisibleLogicalRange({ from: range.from + shift, to: range.to + shift });
  const [ticker] = found.tickers.filter((name) => found.indexed[name][at] != null);
  chart.setCrosshairPosition(found.indexed[ticker][at], found.date[at], lines.get(ticker));
  show(at);
  const highest = [...parts.legend.children].slice(1, 4).map((row) => `${row.dataset.ticker} ${row.lastChild.textContent}`);
  tell(`${found.date[at]}: ${highest.join(', ')}`);
}
}
