'use strict';
// The page Ticker: the charts of one ticker, one below the other on one axis of time, with the values of the session in each.

{
const SHIFTED = 21; // sessions that an arrow key with Shift moves: about a month
const NEWEST_YEARS = 3; // are drawn first; the rest comes behind

let panes; // their description, from charts.py
let shownTicker, bars; // the ticker that is shown, and its columns
let places; // date → place in the columns
let chart, drawn, legends; // drawn: of each pane its series
let place; // of the session whose values are shown
let parts; // the page's elements

pages.ticker = {
  title: 'Ticker',
  keys: [
    ['← →', 'the crosshair moves by a session, with Shift by 21'], ['Home, End', 'to the first, the last session'],
    ['+ −', 'zoom'],
  ],

  build(section) {
    parts = {
      day: element('p', ''), empty: element('p', 'said'), canvas: element('div', ''), chart: element('div', ''), key: element('p', ''),
    };
    for (const [name, part] of Object.entries(parts)) part.id = name;
    parts.empty.hidden = true;
    parts.chart.tabIndex = 0;
    parts.chart.setAttribute('role', 'group');
    parts.chart.setAttribute('aria-label', 'Charts; the arrow keys move the crosshair by a session, with Shift by 21');
    parts.chart.append(parts.canvas);
    section.append(element('div', 'bar', parts.day), parts.empty, parts.chart, parts.key);
    new ResizeObserver(() => chart && placeLegends()).observe(parts.chart);
  },

  async open({ ticker, range }) {
    panes ??= await describe();
    if (!about.tickers.includes(ticker)) throw unknown(ticker);
    const since = embedded ? '' : monthsBefore(about.last, NEWEST_YEARS * 12);
    const newest = await answer(`bars/${encodeURIComponent(ticker)}${since && `?since=${since}`}`);
    const found = since && RANGES[range] > NEWEST_YEARS * 12 ? await withOlder(ticker, newest, since) : newest;
    const hasBars = found.date.length > 0;
    for (const part of [parts.chart, parts.key, parts.day]) part.hidden = !hasBars;
    parts.empty.hidden = hasBars;
    parts.empty.textContent = `The lake has no session of ${ticker} since ${since || about.first}.`;
    if (!hasBars) return;
    [shownTicker, bars] = [ticker, found];
    draw();
    show(bars.date.length - 1);
    if (since && found === newest && about.first < since) addOlder(ticker, newest, since);
  },

  key(event) {
    const isShown = chart && parts.chart.offsetParent; // an element that is not displayed has no such parent
    if (!isShown) return false;
    const step = event.shiftKey ? SHIFTED : 1;
    const sessions = { ArrowLeft: -step, ArrowRight: step, Home: -Infinity, End: Infinity }[event.key];
    const zoom = { '+': 0.8, '=': 0.8, '-': 1.25 }[event.key];
    if (sessions !== undefined) moveCrosshair(sessions);
    else if (zoom) zoomBy(zoom);
    else return false;
    return true;
  },

  redraw() {
    if (!chart) return;
    const range = chart.timeScale().getVisibleLogicalRange();
    draw();
    chart.timeScale().setVisibleLogicalRange(range);
    show(place);
  },
};

// The error for a ticker that the lake does not have, with those that are spelled alike.
function unknown(ticker) {
  const alike = (name) => [...ticker].filter((letter, at) => name[at] === letter).length;
  const nearest = about.tickers.filter(alike).sort((one, other) => alike(other) - alike(one)).slice(0, 5);
  const when = state.as_of ? ' then' : '';
  return new AnswerError(`The lake has no bars of ${ticker}${when}.${nearest.length ? ' Spelled alike:' : ''}`, { nearest });
}

async function describe() {
  const described = await answer('charts');
  legends = described.map(() => element('div', 'legend'));
  parts.chart.append(...legends);
  parts.key.append(...described.flatMap((pane) => pane.marks).map((mark) => {
    const sign = { arrowUp: '↑', arrowDown: '↓', circle: '●', square: '■' }[mark.shape];
    const sample = element('span', '', `${sign}${mark.text.replace('{}', '4')}`);
    sample.style.color = `var(--${mark.color})`;
    return element('span', '', sample, ` ${mark.label}`);
  }));
  return described;
}

function monthsBefore(date, months) {
  const day = new Date(`${date}T00:00:00Z`);
  day.setUTCMonth(day.getUTCMonth() - months);
  return day.toISOString().slice(0, 10);
}

async function withOlder(ticker, newest, since) {
  const older = await answer(`bars/${encodeURIComponent(ticker)}?before=${since}`);
  return Object.fromEntries(Object.entries(newest).map(([name, values]) => [name, older[name].concat(values)]));
}

// Draw the older sessions behind the newest, without a jump.
async function addOlder(ticker, newest, since) {
  let whole;
  try {
    whole = await withOlder(ticker, newest, since);
  } catch (error) {
    if (error instanceof OutdatedError) return;
    throw error;
  }
  const added = whole.date.length - newest.date.length;
  if (!added) return;
  const range = chart.timeScale().getVisibleLogicalRange();
  bars = whole;
  place += added;
  setData();
  chart.timeScale().setVisibleLogicalRange({ from: range.from + added, to: range.to + added });
}

// Decimals of the axis: a price of 0.0123 needs more than one of 410.17.
function decimals() {
  const close = bars.close.at(-1);
  return close >= 1 ? 2 : close >= 0.01 ? 4 : 8;
}

function pointsOf(series) {
  const [column] = series.columns;
  const [own, down] = [colorOf(series.color), colorOf('down')];
  return bars.date.map((time, at) => {
    if (series.kind === 'candles') {
      // A bar of which only the close is known is drawn flat at the close; the legend says which values are unknown.
      const close = bars.close[at];
      const [open, high, low] = ['open', 'high', 'low'].map((name) => bars[name][at] ?? close);
      return { time, open, high, low, close };
    }
    const value = bars[column][at];
    if (value == null) return { time };
    const color = series.kind === 'signed_bars' && value < 0 ? down : own;
    return { time, value, color: series.kind === 'bars' ? `${color}99` : color }; // bars recede behind their average
  });
}

function marksOf(pane) {
  const found = pane.marks.flatMap((mark) =>
    bars.date.flatMap((time, at) => {
      const value = bars[mark.column][at];
      const isMarked = value != null && value !== mark.absent && value !== bars[mark.column][at - 1];
      const look = { position: mark.position, shape: mark.shape, color: colorOf(mark.color) };
      return isMarked ? [{ time, text: mark.text.replace('{}', DIGITS.format(value)), ...look }] : [];
    }),
  );
  return found.sort((one, other) => (one.time < other.time ? -1 : 1));
}

function addSeries(pane, number, series) {
  const { CandlestickSeries, HistogramSeries, LineSeries, LineStyle } = LightweightCharts;
  const kind = { candles: CandlestickSeries, bars: HistogramSeries, signed_bars: HistogramSeries }[series.kind] ?? LineSeries;
  const price = { type: 'price', precision: decimals(), minMove: 10 ** -decimals() };
  return chart.addSeries(kind, {
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
  }, number);
}

function draw() {
  chart?.remove();
  const { createChart, createSeriesMarkers, CrosshairMode, LineStyle } = LightweightCharts;
  chart = createChart(parts.canvas, {
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
    return { series: all, markers: pane.marks.length ? createSeriesMarkers(all[0], []) : null };
  });
  setData();
  chart.timeScale().subscribeVisibleTimeRangeChange((range) => range && Object.assign(parts.chart.dataset, range));
  chart.subscribeCrosshairMove(({ time }) => show(places.get(time) ?? bars.date.length - 1));
  setRange();
  placeLegends();
}

function setData() {
  places = new Map(bars.date.map((date, at) => [date, at]));
  panes.forEach((pane, number) => {
    pane.series.forEach((series, at) => drawn[number].series[at].setData(pointsOf(series)));
    drawn[number].markers?.setMarkers(marksOf(pane));
  });
}

// A pane's place is known once it is laid out, in the next frame.
function placeLegends() {
  requestAnimationFrame(() => requestAnimationFrame(() => {
    const top = parts.chart.getBoundingClientRect().top;
    chart.panes().forEach((pane, number) => {
      const found = pane.getHTMLElement();
      if (found) legends[number].style.top = `${found.getBoundingClientRect().top - top + 4}px`;
    });
    document.body.dataset.drawn = shownTicker;
  }));
}

// Show the values of a session in the legends and above the charts.
function show(at) {
  place = at;
  parts.day.replaceChildren(valueOf('b', 'date', bars.date[at]));
  const add = (label, value) => parts.day.append(element('span', '', element('span', 'name', label), ' ', value));
  for (const column of panes[0].series[0].columns) add(column[0].toUpperCase(), valueOf('b', column, bars[column][at], 'price'));
  const moved = valueOf('b', 'return_1d', bars.return_1d[at], 'change');
  moved.style.color = `var(--${bars.return_1d[at] < 0 ? 'down' : 'up'})`;
  parts.day.append(moved);
  let isSignal = false;
  for (const mark of panes.flatMap((pane) => pane.marks)) {
    const value = bars[mark.column][at];
    if (value == null || value === mark.absent) continue;
    isSignal ||= mark.absent === false;
    const made = valueOf('span', mark.column, value);
    made.className = 'mark';
    made.style.color = `var(--${mark.color})`;
    made.textContent = value === true ? mark.label : `${mark.label} ${DIGITS.format(value)}`;
    parts.day.append(made);
  }
  if (isSignal && bars.tradable_from[at]) add('tradable from', valueOf('b', 'tradable_from', bars.tradable_from[at]));
  if (bars.bar_status[at] === 'provisional') parts.day.append(element('span', 'mark', 'provisional bar'));
  panes.forEach((pane, number) => {
    legends[number].replaceChildren(element('span', 'title', pane.title));
    for (const series of pane.series) {
      if (series.kind === 'candles') continue; // its values are above the charts
      const name = element('span', '', `${series.label} `, valueOf('b', series.columns[0], bars[series.columns[0]][at], pane.unit));
      name.style.color = `var(--${series.color})`;
      legends[number].append(name);
    }
  });
}

// Show the months of the chosen range, up to the newest session.
function setRange() {
  const months = RANGES[state.range];
  const since = Number.isFinite(months) ? monthsBefore(bars.date.at(-1), months) : '';
  const first = Math.max(bars.date.findIndex((date) => date >= since), 0);
  chart.timeScale().setVisibleLogicalRange({ from: first, to: bars.date.length + 1 });
}

function zoomBy(factor) {
  const { from, to } = chart.timeScale().getVisibleLogicalRange();
  chart.timeScale().setVisibleLogicalRange({ from: to - (to - from) * factor, to });
}

function moveCrosshair(sessions) {
  const at = Math.min(Math.max(place + sessions, 0), bars.date.length - 1);
  const range = chart.timeScale().getVisibleLogicalRange();
  const shift = at < range.from ? at - range.from - 1 : at > range.to ? at - range.to + 1 : 0;
  if (shift) chart.timeScale().setVisibleLogicalRange({ from: range.from + shift, to: range.to + shift });
  chart.setCrosshairPosition(bars.close[at], bars.date[at], drawn[0].series[0]);
  show(at);
  tell(`${bars.date[at]}, close ${written(bars.close[at], 'price')}, ${written(bars.return_1d[at], 'change')}`);
}
}
