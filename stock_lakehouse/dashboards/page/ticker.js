'use strict';
// The page Ticker: the charts of one ticker, one below the other on one axis of time, with the values of the session in each.
// Its part of the state: traded ('1': prices as traded), log ('1': logarithmic), table ('1'), at (the session of the crosshair).

{
const SHIFTED = 21; // sessions that an arrow key with Shift moves: about a month
const NEWEST_YEARS = 3; // are drawn first; the rest comes behind
const LISTED = 500; // rows of the table of the shown sessions
const CROWDED = 800; // of more shown sessions, the dividends are not marked
const NOTE_AFTER = 400; // ms until a moved crosshair is in the address
const SIGNS = { arrowUp: '↑', arrowDown: '↓', circle: '●', square: '■' };

let panes; // their description, from charts.py
let parts; // the page's elements
let fields; // of each column the elements that show its value
let chart, drawn; // drawn: of each pane its series and markers
let bars; // the columns of the shown ticker
let values; // the same, with prices as traded if that is chosen
let times; // of the sessions, in seconds of the epoch
let places; // time → place in the columns
let restated; // date → lines of the ledger
let shown = {}; // what of the state is drawn
let place; // of the session whose values are shown
let isPinned; // the crosshair was set by a key or the address
let noting;

pages.ticker = {
  title: 'Ticker',
  question: 'charts',
  keys: [
    ['← →', 'the crosshair moves by a session, with Shift by 21'], ['Home, End', 'to the first, the last session'], ['+ −', 'zoom'],
    ['T', 'a table of the shown sessions'], ['A', 'prices as traded, or adjusted for splits'], ['L', 'logarithmic axis of prices'],
  ],

  build(section) {
    const toggle = (name, text, title) => {
      const made = button(text, () => go({ [name]: state[name] ? '' : '1' }));
      Object.assign(made, { title });
      made.dataset.toggle = name;
      return made;
    };
    parts = {
      name: element('h2', ''), day: element('p', ''), marks: element('p', ''), note: element('p', ''), chart: element('div', ''),
      canvas: element('div', ''), key: element('p', ''), table: element('div', ''),
      toggles: element('div', '',
        toggle('traded', 'As traded', 'Prices and volumes as they were traded, not adjusted for later splits (A)'),
        toggle('log', 'Log', 'Logarithmic axis of prices (L)'), toggle('table', 'Table', 'A table of the shown sessions (T)')),
    };
    for (const [name, part] of Object.entries(parts)) part.id = name;
    for (const part of [parts.chart, parts.key, parts.toggles, parts.note, parts.table]) part.hidden = true;
    parts.chart.tabIndex = 0;
    parts.chart.setAttribute('role', 'group');
    parts.chart.setAttribute('aria-label', 'Charts; the arrow keys move the crosshair by a session, with Shift by 21');
    parts.chart.append(parts.canvas);
    section.append(element('div', 'session', parts.name, parts.day, parts.marks, parts.toggles), parts.note, parts.chart, parts.key, parts.table);
    new ResizeObserver(() => chart && placeLegends()).observe(parts.chart);
  },

  async open({ ticker, range, traded, log, table, at }) {
    for (const made of parts.toggles.children) made.setAttribute('aria-pressed', String(Boolean(state[made.dataset.toggle])));
    if (!about.tickers.includes(ticker)) throw unknown(ticker);
    const isKnown = shown.ticker === ticker && shown.digest === about.digest && shown.as_of === state.as_of;
    const before = bars;
    const isLong = RANGES[range] > NEWEST_YEARS * 12 || Boolean(at);
    if (!isKnown || (isLong && !shown.isWhole)) {
      const question = `bars/${encodeURIComponent(ticker)}`;
      const [described, found] = await Promise.all([panes ?? answer('charts'), answer(embedded || isLong ? question : `${question}?years=${NEWEST_YEARS}`)]);
      if (!panes) describe(described);
      bars = found;
      shown = { ticker, digest: about.digest, as_of: state.as_of, isWhole: embedded || isLong };
      restated = undefined;
    }
    const hasBars = bars.date.length > 0;
    for (const part of [parts.chart, parts.key, parts.day, parts.marks, parts.toggles]) part.hidden = !hasBars;
    parts.name.textContent = ticker;
    say(ticker, at);
    if (!hasBars) {
      shown = {};
      return;
    }
    // What the reader has moved to stays, unless something else is to be seen.
    const isMoved = isKnown && shown.range === range && shown.at === at;
    const isRedrawn = bars !== before || shown.traded !== traded;
    Object.assign(shown, { range, traded, at });
    if (!chart) draw();
    if (isRedrawn) setData();
    drawn[0].series[0].priceScale().applyOptions({ mode: LightweightCharts.PriceScaleMode[log ? 'Logarithmic' : 'Normal'] });
    if (!isMoved) setRange();
    if (isMoved) isPinned ? setCrosshair(place) : show(place);
    else if (at) setCrosshair(nearest(at));
    else unpin();
    placeLegends();
    fillTable(table);
    addRest(ticker);
  },

  key(event) {
    const isShown = chart && parts.chart.offsetParent; // an element that is not displayed has no such parent
    if (!isShown) return false;
    const step = event.shiftKey ? SHIFTED : 1;
    const sessions = { ArrowLeft: -step, ArrowRight: step, Home: -Infinity, End: Infinity }[event.key];
    const zoom = { '+': 0.8, '=': 0.8, '-': 1.25, _: 1.25 }[event.key];
    const toggled = { t: 'table', a: 'traded', l: 'log' }[event.key.toLowerCase()];
    if (sessions !== undefined) moveCrosshair(sessions);
    else if (zoom) zoomBy(zoom);
    else if (toggled) go({ [toggled]: state[toggled] ? '' : '1' });
    else return false;
    return true;
  },

  // A range was chosen, perhaps the same again: what the reader has moved to is left.
  reset() {
    shown.range = undefined;
  },

  // What is marked, as it is given to the chart.
  marks: () => panes.flatMap((pane) => marksOf(pane, false)),

  redraw() {
    if (!chart) return;
    const range = chart.timeScale().getVisibleLogicalRange();
    chart.remove();
    draw();
    setData();
    chart.timeScale().setVisibleLogicalRange(range);
    show(place);
    placeLegends();
  },
};

// The error for a ticker that the lake does not have, with those that are spelled alike.
function unknown(ticker) {
  const alike = (name) => [...ticker].filter((letter, at) => name[at] === letter).length - Math.abs(name.length - ticker.length) / 2;
  const nearest = about.tickers.filter((name) => alike(name) > 0).sort((one, other) => alike(other) - alike(one)).slice(0, 5);
  const when = state.as_of ? ' then' : '';
  return new AnswerError(`The lake has no bars of ${ticker}${when}.${nearest.length ? ' Spelled alike:' : ''}`, { nearest });
}

// What is to be known of the ticker before its charts are read.
function say(ticker, at) {
  const last = bars.date.at(-1);
  let text = '';
  if (!last) text = `The lake has no session of ${ticker} since ${about.first}.`;
  else if (last < about.last) text = `The last session of ${ticker} is ${last}; the lake has sessions to ${about.last}.`;
  else if (at && !bars.date.includes(at)) text = `${at} is no session of ${ticker}; ${bars.date[nearest(at)]} is shown.`;
  parts.note.textContent = text;
  parts.note.hidden = !text;
}

// The place of the session `date`, or of the last before it.
function nearest(date) {
  const after = bars.date.findIndex((other) => other > date);
  return after < 0 ? bars.date.length - 1 : Math.max(after - 1, 0);
}

// Make the legends, whose values change with the session.
function describe(described) {
  panes = described;
  fields = new Map();
  const field = (column, unit) => {
    const made = valueOf('b', column, null, unit);
    fields.set(column, { made, unit });
    return made;
  };
  parts.day.append(field('date'));
  for (const column of panes[0].series[0].columns) parts.day.append(element('span', '', element('span', 'name', column[0].toUpperCase()), ' ', field(column, 'price')));
  parts.day.append(field('return_1d', 'change'));
  for (const pane of panes) {
    const legend = element('div', 'legend', element('span', 'title', pane.title));
    for (const series of pane.series) {
      if (series.kind === 'candles') continue; // its values are above the charts
      const item = element('span', '', `${series.label} `, field(series.columns[0], pane.unit));
      item.style.color = `var(--${series.color})`;
      legend.append(item);
    }
    parts.chart.append(legend);
  }
  parts.key.append(...panes.flatMap((pane) => pane.marks).map((mark) => {
    const sample = element('span', '', `${SIGNS[mark.shape]}${mark.text.replace('{}', '4')}`);
    sample.style.color = `var(--${mark.color})`;
    return element('span', '', sample, ` ${mark.label}`);
  }));
}

// Read what is behind the newest sessions, and draw it without a jump; then what was restated.
async function addRest(ticker) {
  const mine = shown;
  const question = encodeURIComponent(ticker);
  try {
    if (!shown.isWhole) {
      const older = await answer(`bars/${question}?before=${bars.date[0]}`);
      const added = older.date.length;
      if (mine !== shown) return;
      shown.isWhole = true;
      if (added) {
        const range = chart.timeScale().getVisibleLogicalRange();
        bars = Object.fromEntries(Object.entries(bars).map(([name, newest]) => [name, older[name].concat(newest)]));
        place += added;
        setData();
        chart.timeScale().setVisibleLogicalRange({ from: range.from + added, to: range.to + added });
        if (isPinned) setCrosshair(place);
      }
    }
    if (!restated) {
      restated = new Map();
      for (const line of await answer(`restated/${question}`)) restated.set(line.date, [...(restated.get(line.date) ?? []), line]);
      showMarks();
    }
    document.body.dataset.whole = ticker;
  } catch (error) {
    if (mine === shown && !(error instanceof OutdatedError || error instanceof ChangedError)) fail(error);
  }
}

// ---- drawing

// Decimals of the axis: a price of 0.0123 needs more than one of 410.17.
function decimals() {
  const close = values.close.at(-1);
  return close >= 1 ? 2 : close >= 0.01 ? 4 : 8;
}

function draw() {
  const { createChart, createSeriesMarkers, CrosshairMode, LineStyle } = LightweightCharts;
  chart = createChart(parts.canvas, {
    autoSize: true,
    layout: {
      background: { color: colorOf('paper') }, textColor: colorOf('faint'), fontFamily: getComputedStyle(document.body).fontFamily,
      panes: { separatorColor: colorOf('rule'), separatorHoverColor: colorOf('raised') },
    },
    grid: { vertLines: { color: colorOf('grid') }, horzLines: { color: colorOf('grid') } },
    crosshair: { mode: CrosshairMode.Normal, ...Object.fromEntries(['vertLine', 'horzLine'].map((name) => [name, { color: colorOf('faint'), labelBackgroundColor: colorOf('label') }])) },
    rightPriceScale: { borderColor: colorOf('rule'), minimumWidth: 64 },
    timeScale: { borderColor: colorOf('rule'), minBarSpacing: 0.1, lockVisibleTimeRangeOnResize: true },
    localization: { locale: 'en-US', dateFormat: 'yyyy-MM-dd' },
    handleScroll: { vertTouchDrag: false }, // a finger that moves up and down scrolls the page
  });
  drawn = panes.map((pane, number) => {
    const all = pane.series.map((series) => addSeries(pane, number, series));
    for (const level of pane.lines) {
      all[0].createPriceLine({ price: level, color: colorOf('grey'), lineWidth: 1, lineStyle: LineStyle.Dashed, axisLabelVisible: false });
    }
    const isVolume = pane.unit === 'shares'; // bars stand on the ground
    for (const series of all) {
      const scaleMargins = { top: number ? 0.25 : 0.1, bottom: isVolume ? 0 : 0.08 };
      series.priceScale().applyOptions({ scaleMargins, entireTextOnly: true });
    }
    chart.panes()[number].setStretchFactor(pane.share);
    for (const [upper, lower] of bandsOf(pane)) all[0].attachPrimitive(bandBetween(all[0], upper, lower));
    return { series: all, markers: pane.marks.length ? createSeriesMarkers(all[0], []) : null };
  });
  chart.timeScale().subscribeVisibleLogicalRangeChange((range) => range && sawRange(range));
  chart.subscribeCrosshairMove(({ time, sourceEvent }) => {
    if (sourceEvent) isPinned = false;
    if (!isPinned) show(places.get(time) ?? bars.date.length - 1);
  });
  chart.subscribeClick(({ time }) => noteAt(places.get(time)));
}

function addSeries(pane, number, series) {
  const { CandlestickSeries, HistogramSeries, LineSeries, LineStyle } = LightweightCharts;
  const kind = { candles: CandlestickSeries, session_bars: HistogramSeries, signed_bars: HistogramSeries }[series.kind] ?? LineSeries;
  const isDashed = series.kind === 'dashed';
  return chart.addSeries(kind, {
    color: colorOf(series.color), lineWidth: isDashed ? 1 : 1.5, lineStyle: isDashed ? LineStyle.Dotted : LineStyle.Solid,
    upColor: colorOf('up'), wickUpColor: colorOf('up'), downColor: colorOf('down'), wickDownColor: colorOf('down'),
    borderVisible: false, priceLineVisible: series.kind === 'candles', priceLineStyle: LineStyle.Dotted, crosshairMarkerVisible: false,
    lastValueVisible: series.kind === 'candles' || pane.unit === 'percent',
    autoscaleInfoProvider: (original) => {
      const info = original();
      if (info?.priceRange) {
        info.priceRange.minValue = Math.min(info.priceRange.minValue, ...pane.lines);
        info.priceRange.maxValue = Math.max(info.priceRange.maxValue, ...pane.lines);
      }
      return info;
    },
  }, number);
}

// Pairs of curves with a filled area between them: columns, or levels.
function bandsOf(pane) {
  const dashed = pane.series.filter((series) => series.kind === 'dashed').map((series) => series.columns[0]);
  return [dashed, pane.lines].filter((edges) => edges.length === 2);
}

// A filled area behind a series.
function bandBetween(series, one, other) {
  const color = `${colorOf('grey')}14`;
  function draw(target) {
    target.useBitmapCoordinateSpace(({ context, bitmapSize, horizontalPixelRatio, verticalPixelRatio }) => {
      const range = chart.timeScale().getVisibleLogicalRange();
      if (!range) return;
      const edge = (column, at) => (typeof column === 'number' ? column : values[column][at]);
      const first = Math.max(Math.floor(range.from) - 1, 0);
      const last = Math.min(Math.ceil(range.to) + 1, bars.date.length - 1);
      context.fillStyle = color;
      if (typeof one === 'number') {
        const [top, bottom] = [series.priceToCoordinate(Math.max(one, other)), series.priceToCoordinate(Math.min(one, other))];
        context.fillRect(0, top * verticalPixelRatio, bitmapSize.width, (bottom - top) * verticalPixelRatio);
        return;
      }
      const known = [];
      for (let at = first; at <= last; at += 1) if (edge(one, at) != null && edge(other, at) != null) known.push(at);
      const point = (column) => (at) => context.lineTo(
        chart.timeScale().logicalToCoordinate(at) * horizontalPixelRatio, series.priceToCoordinate(edge(column, at)) * verticalPixelRatio);
      context.beginPath();
      known.forEach(point(one));
      known.reverse().forEach(point(other));
      context.fill();
    });
  }
  const view = { zOrder: () => 'bottom', renderer: () => ({ draw }) };
  return { paneViews: () => [view] };
}

// Prices as traded are those adjusted for splits times the factor, and volumes divided by it.
function asTraded() {
  const factors = bars.split_factor;
  const by = (change) => (name) => [name, bars[name].map((value, at) => (value == null ? null : change(value, factors[at] ?? 1)))];
  const columns = (pane) => pane.series.flatMap((series) => series.columns);
  const prices = [...panes.filter((pane) => pane.name === 'price').flatMap(columns), 'dividend'];
  const volumes = panes.filter((pane) => pane.unit === 'shares').flatMap(columns);
  return {
    ...bars,
    ...Object.fromEntries(prices.map(by((value, factor) => value * factor))),
    ...Object.fromEntries(volumes.map(by((value, factor) => value / factor))),
  };
}

function setData() {
  values = shown.traded ? asTraded() : bars;
  times = bars.date.map((date) => Date.parse(date) / 1000);
  places = new Map(times.map((time, at) => [time, at]));
  const price = { type: 'price', precision: decimals(), minMove: 10 ** -decimals() };
  const formats = { price, shares: { type: 'volume' }, percent: { type: 'price', precision: 1, minMove: 0.1 } };
  panes.forEach((pane, number) => {
    pane.series.forEach((series, at) => {
      drawn[number].series[at].applyOptions({ priceFormat: formats[pane.unit] });
      drawn[number].series[at].setData(pointsOf(series));
    });
  });
  setMarks();
}

function pointsOf(series) {
  const [column] = series.columns;
  const [up, down] = [colorOf('up'), colorOf('down')];
  const { open, high, low, close } = values;
  return times.map((time, at) => {
    if (series.kind === 'candles') {
      // A bar of which only the close is known is drawn flat at the close; the legend says which values are unknown.
      return { time, open: open[at] ?? close[at], high: high[at] ?? close[at], low: low[at] ?? close[at], close: close[at] };
    }
    const value = values[column][at];
    if (value == null) return { time };
    if (series.kind === 'signed_bars') return { time, value, color: value < 0 ? down : up };
    // Bars recede behind their averages.
    if (series.kind === 'session_bars') return { time, value, color: `${close[at] < open[at] ? down : up}80` };
    return { time, value };
  });
}

function setMarks() {
  panes.forEach((pane, number) => drawn[number].markers?.setMarkers(marksOf(pane, shown.isCrowded)));
}

function marksOf(pane, isCrowded) {
  const found = pane.marks.filter((mark) => mark.text || !isCrowded).flatMap((mark) => {
    const look = { position: mark.position, shape: mark.shape, color: colorOf(mark.color), size: mark.text ? 1 : 0.5 };
    return times.flatMap((time, at) => {
      const value = bars[mark.column][at];
      const isMarked = value != null && value !== mark.absent && value !== bars[mark.column][at - 1];
      return isMarked ? [{ time, text: mark.text.replace('{}', DIGITS.format(value)), ...look }] : [];
    });
  });
  return found.sort((one, other) => one.time - other.time);
}

// A pane's place is known once it is laid out, in the next frame.
function placeLegends() {
  requestAnimationFrame(() => requestAnimationFrame(() => {
    const top = parts.chart.getBoundingClientRect().top;
    const legends = parts.chart.querySelectorAll('.legend');
    chart.panes().forEach((pane, number) => {
      const found = pane.getHTMLElement();
      if (found) legends[number].style.top = `${found.getBoundingClientRect().top - top + 4}px`;
    });
    document.body.dataset.drawn = shown.ticker;
  }));
}

// ---- the session

// Show the values of a session in the legends and above the charts.
function show(at) {
  place = at;
  for (const [column, { made, unit }] of fields) {
    const value = values[column][at];
    made.textContent = typeof value === 'string' ? value : written(value, unit);
    made.dataset.exact = value == null ? '' : String(value);
  }
  const moved = fields.get('return_1d').made;
  moved.textContent = `${bars.return_1d[at] < 0 ? '▼' : bars.return_1d[at] > 0 ? '▲' : ''} ${moved.textContent}`.trim();
  moved.style.color = `var(--${bars.return_1d[at] < 0 ? 'down' : 'up'})`;
  showMarks();
}

// What is to be said of the session besides its values.
function showMarks() {
  const found = [];
  let isSignal = false;
  for (const mark of panes.flatMap((pane) => pane.marks)) {
    const value = bars[mark.column][place];
    if (value == null || value === mark.absent) continue;
    isSignal ||= mark.absent === false;
    const exact = values[mark.column][place];
    const made = valueOf('span', mark.column, exact);
    made.style.color = `var(--${mark.color})`;
    made.textContent = value === true ? `${SIGNS[mark.shape]} ${mark.label}` : `${mark.label} ${DIGITS.format(exact)}`;
    found.push(made);
  }
  const plain = (text) => element('span', 'name', text);
  if (isSignal && bars.tradable_from[place]) found.push(element('span', '', plain('tradable from '), valueOf('b', 'tradable_from', bars.tradable_from[place])));
  if (bars.bar_status[place] === 'provisional') found.push(valueOf('span', 'bar_status', 'provisional bar'));
  for (const line of restated?.get(bars.date[place]) ?? []) {
    const made = plain(`restated ${line.restated_at.slice(0, 10)}: ${line.column} ${line.old ?? UNKNOWN} → ${line.new ?? 'withdrawn'}${line.cause ? ` (${line.cause})` : ''}`);
    made.dataset.restated = line.column;
    found.push(made);
  }
  if (shown.traded) found.push(plain(`as traded, × ${DIGITS.format(bars.split_factor[place] ?? 1)}`));
  if (found.length || parts.marks.childElementCount) parts.marks.replaceChildren(...found);
}

// Show the months of the chosen range, up to the newest session.
function setRange() {
  const months = RANGES[state.range];
  const since = Number.isFinite(months) ? monthsBefore(bars.date.at(-1), months) : '';
  const first = bars.date.findIndex((date) => date >= since);
  chart.timeScale().setVisibleLogicalRange({ from: first, to: bars.date.length + 1 });
}

function sawRange({ from, to }) {
  const [first, last] = [Math.max(Math.ceil(from), 0), Math.min(Math.floor(to), bars.date.length - 1)];
  Object.assign(parts.chart.dataset, { from: bars.date[first], to: bars.date[last] });
  const isCrowded = to - from > CROWDED;
  if (isCrowded !== shown.isCrowded) {
    shown.isCrowded = isCrowded;
    setMarks();
  }
  if (state.table) fillTable(state.table);
}

function zoomBy(factor) {
  const { from, to } = chart.timeScale().getVisibleLogicalRange();
  chart.timeScale().setVisibleLogicalRange({ from: to - (to - from) * factor, to });
}

function moveCrosshair(sessions) {
  const at = Math.min(Math.max(place + sessions, 0), bars.date.length - 1);
  setCrosshair(at);
  noteAt(at);
  tell(`${bars.date[at]}, close ${written(values.close[at], 'price')}, ${written(bars.return_1d[at], 'change')}`);
}

function unpin() {
  isPinned = false;
  chart.clearCrosshairPosition();
  show(bars.date.length - 1);
}

function setCrosshair(at) {
  const range = chart.timeScale().getVisibleLogicalRange();
  const isFar = at < range.from - SHIFTED || at > range.to + SHIFTED;
  // What is far is shown in the middle, unless nothing would be beside it.
  const middle = Math.max(Math.min(at - (range.from + range.to) / 2, bars.date.length + 1 - range.to), -range.from);
  const shift = isFar ? middle : at < range.from ? at - range.from - 1 : at > range.to ? at - range.to + 1 : 0;
  const set = () => isPinned && place === at && chart.setCrosshairPosition(values.close[at], times[at], drawn[0].series[0]);
  if (shift) chart.timeScale().setVisibleLogicalRange({ from: range.from + shift, to: range.to + shift });
  isPinned = true;
  show(at);
  set();
  // A changed range is laid out in the next frame, and only then the place of a session is known.
  requestAnimationFrame(() => requestAnimationFrame(set));
}

// Browsers refuse an address that changes too often.
function noteAt(at) {
  clearTimeout(noting);
  if (at === undefined) return;
  const date = at === bars.date.length - 1 ? '' : bars.date[at];
  noting = setTimeout(() => {
    if (state.page !== 'ticker' || state.ticker !== shown.ticker) return;
    note({ at: date });
    shown.at = state.at;
  }, NOTE_AFTER);
}

// ---- the table

function fillTable(isShown) {
  parts.table.hidden = !isShown;
  if (!isShown) {
    parts.table.replaceChildren();
    return;
  }
  const range = chart.timeScale().getVisibleLogicalRange();
  const [first, last] = [Math.max(Math.ceil(range.from), 0), Math.min(Math.floor(range.to), bars.date.length - 1)];
  const rows = [];
  for (let at = last; at >= first && rows.length < LISTED; at -= 1) rows.push(at);
  const series = panes.flatMap((pane) => pane.series.flatMap(({ kind, columns, label }) =>
    columns.map((column) => [kind === 'candles' ? column[0].toUpperCase() + column.slice(1) : label, column, pane.unit])));
  const marks = panes.flatMap((pane) => pane.marks);
  const marked = (at) => marks.filter((mark) => bars[mark.column][at] != null && bars[mark.column][at] !== mark.absent).map((mark) => mark.label);
  const key = `${rows[0]} ${rows.length} ${shown.ticker} ${shown.traded} ${shown.digest}`;
  if (parts.table.dataset.key === key && parts.table.firstChild) return;
  parts.table.dataset.key = key;
  parts.table.replaceChildren(
    element('p', 'name', `The shown sessions, newest first${last - first >= LISTED ? `; the newest ${LISTED} of ${last - first + 1}` : ''}.`),
    tableOf([
      ['Session', (at) => bars.date[at]],
      ...series.map(([label, column, unit]) => [label, (at) => valueOf('td', column, values[column][at], unit)]),
      ['Change', (at) => valueOf('td', 'return_1d', bars.return_1d[at], 'change')],
      ['Marks', (at) => marked(at).join(', ')],
    ], rows),
  );
}
}
