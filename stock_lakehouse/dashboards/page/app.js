'use strict';
// The frame of the page: the state in its address, the answers, navigation, keys, theme, and what is said of the lake and of errors.
//
// A page registers itself: pages.NAME = {
//   title,                 in the navigation
//   build(section),        makes its elements, once
//   async open(state),     shows what the state says: at first, and whenever it has changed; a rejection is told by the frame
//   key(event),            optional: a key was pressed that the frame does not use; true if the page used it
//   redraw(),              optional: colours have changed
//   reset(),               optional: a range was chosen, perhaps the same again
//   keys,                  optional: [key, what it does] for the help
//   question,              optional: the question without whose answer a file does not show the page; NAME, if left out
//   isShown(),             optional: whether it is shown, if that is not what decides
//   hasNoRange,            optional: true if the chosen range changes nothing on the page
// }
// State: { page, ticker, range, as_of, … }, texts; what else is in the query belongs to the page alone.

const pages = {};
const RANGES = { '3M': 3, '6M': 6, '1Y': 12, '2Y': 24, '5Y': 60, '10Y': 120, All: Infinity }; // months
const SHARED = ['ticker', 'range', 'as_of']; // what goes along from page to page
const DEFAULT_RANGE = '1Y';
const SLOW = 300; // ms until the bar of progress is seen
const AGAIN = 500; // ms until a copy that is being made is asked for again
const PATIENCE = 60_000; // ms for an answer
const PREPARING = 1_800_000; // ms for a copy that is being made
const LOOK = 60_000; // ms between two looks at whether the lake has changed

const embedded = byId('answers') && JSON.parse(byId('answers').textContent);
let state = {};
let about; // the answer to `about`, of the shown moment
let turn = 0; // counts what was opened: a late answer of an earlier one is dropped

// ---- answers

class AnswerError extends Error {
  constructor(message, { nearest = [], isGone = false } = {}) {
    super(message);
    Object.assign(this, { nearest, isGone });
  }
}
class OutdatedError extends Error {} // something else was opened meanwhile
class ChangedError extends Error {} // the lake has another version than `about` says

// The answer to a question, as values: the only way of a page to its data, by the server or from inside a file.
async function answer(question) {
  const mine = turn;
  const found = await (embedded ? unpacked(question) : fetched(question));
  if (mine !== turn) throw new OutdatedError();
  return found;
}

// Deflated and in Base64. A file has one answer of each path, whatever the query.
async function unpacked(question) {
  const packed = embedded[question] ?? embedded[decoded(question.split('?')[0])];
  if (packed === undefined) throw new AnswerError(`This file has no answer to ${question}.`);
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Response(inflated).json();
}

async function fetched(question) {
  const asked = state.as_of ? `${question}${question.includes('?') ? '&' : '?'}as_of=${encodeURIComponent(state.as_of)}` : question;
  const until = performance.now() + PREPARING;
  while (true) {
    let response, content;
    try {
      response = await fetch(`/api/${asked}`, { signal: AbortSignal.timeout(PATIENCE) });
      content = await response.json();
    } catch (error) {
      const isLate = error.name === 'TimeoutError';
      throw new AnswerError(
        isLate ? `The server has not answered for ${PATIENCE / 1000} s.` : 'The server does not answer: perhaps it was stopped. `stock-lakehouse dashboard` starts it.',
        { isGone: true },
      );
    }
    if (content?.preparing && performance.now() < until) {
      const mine = turn;
      line('progress', `The first look at this version takes a moment: ${content.error}`);
      await new Promise((done) => setTimeout(done, AGAIN));
      if (mine !== turn) throw new OutdatedError();
      continue;
    }
    line('progress');
    if (!response.ok) throw new AnswerError(content.error, content);
    if (about && question !== 'about' && response.headers.get('x-lake') !== about.digest) throw new ChangedError();
    return content;
  }
}

// ---- state and address

function stateOf(address) {
  const [path, query = ''] = address.replace('#', '').split('?');
  const [page, ticker] = path.split('/').filter(Boolean).map(decoded);
  const given = Object.fromEntries(new URLSearchParams(query));
  const known = Object.hasOwn(pages, page ?? '') ? page : Object.keys(shownPages())[0];
  return cleaned({ range: DEFAULT_RANGE, ...given, page: known, ticker: (known === 'ticker' && ticker) || state.ticker });
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function cleaned(values) {
  const found = Object.fromEntries(Object.entries(values).filter(([, value]) => value != null && value !== ''));
  if (!Object.hasOwn(RANGES, found.range)) found.range = DEFAULT_RANGE;
  return found;
}

function addressOf({ page, ticker, ...others }) {
  const path = page === 'ticker' && ticker ? `/ticker/${encodeURIComponent(ticker)}` : `/${page}`;
  const query = new URLSearchParams(Object.entries(others).filter(([name, value]) => name !== 'range' || value !== DEFAULT_RANGE));
  const text = String(query).replaceAll('%2C', ',');
  return `${embedded ? '#' : ''}${path}${text && `?${text}`}`;
}

// The state after `changes`; what belongs to a page alone does not go along to another.
function changed(changes) {
  const stays = (changes.page ?? state.page) === state.page;
  const kept = stays ? state : Object.fromEntries(SHARED.map((name) => [name, state[name]]));
  return cleaned({ ...kept, page: state.page, ...changes });
}

// Change the state and show it. `how`: 'push' a new entry of the browser's history, or 'replace' the present one.
function go(changes, how = 'push') {
  state = changed(changes);
  history[`${addressOf(state) === address() ? 'replace' : how}State`](null, '', addressOf(state));
  return show();
}

// Note a change in the address that needs no new answer, like the session under the crosshair.
function note(changes) {
  state = changed(changes);
  history.replaceState(null, '', addressOf(state));
}

// A link that changes the state.
function linkTo(changes, text) {
  const made = element('a', '', text);
  made.href = addressOf(changed(changes));
  made.addEventListener('click', (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(changes);
  });
  return made;
}

// ---- what is shown

// In a file, the pages that it has the answers of.
const isAnswered = (name, page) => !embedded || (page.question ?? name) in embedded;
const shownPages = () => Object.fromEntries(Object.entries(pages).filter(([name, page]) => (page.isShown ? page.isShown() : isAnswered(name, page))));

async function show() {
  const mine = ++turn;
  drawFrame();
  const slow = setTimeout(() => (byId('busy').hidden = false), SLOW);
  byId('main').setAttribute('aria-busy', 'true');
  try {
    for (let tries = 3; ; tries -= 1) {
      try {
        about = await answer('about');
        if (!state.ticker && about.tickers.length) {
          note({ ticker: about.tickers[0] });
          drawFrame();
        }
        sayOfLake();
        await pages[state.page].open(state);
        break;
      } catch (error) {
        if (!(error instanceof ChangedError) || tries === 1) throw error;
      }
    }
    line('failure');
    byId('main').classList.remove('old');
  } catch (error) {
    if (mine === turn && !(error instanceof OutdatedError)) fail(error);
  } finally {
    clearTimeout(slow);
    if (mine === turn) {
      byId('busy').hidden = true;
      byId('main').removeAttribute('aria-busy');
    }
  }
}

function drawFrame() {
  for (const made of document.querySelectorAll('#pages button')) made.setAttribute('aria-pressed', String(made.dataset.page === state.page));
  for (const section of byId('main').children) section.hidden = section.dataset.page !== state.page;
  for (const made of byId('ranges').children) made.setAttribute('aria-pressed', String(made.dataset.range === state.range));
  byId('ranges').hidden = Boolean(pages[state.page].hasNoRange);
  byId('ticker').value = state.ticker ?? '';
  byId('as_of').value = state.as_of?.slice(0, 10) ?? '';
  document.title = `${state.page === 'ticker' && state.ticker ? state.ticker : pages[state.page].title} · stock_lakehouse`;
  line('past', state.as_of && `The past: what the lake said as of ${state.as_of}.`, button('Back to now', () => go({ as_of: '' })));
}

// A line below the header; without a text it is hidden.
function line(id, text, ...others) {
  byId(id).hidden = !text;
  byId(id).replaceChildren(...(text ? [element('span', '', text), ...others] : []));
}

// Say an error; what was drawn before stays, greyed.
function fail(error) {
  const isTold = error instanceof AnswerError;
  const text = isTold ? error.message : `The page could not be drawn (${error.message}). It needs a browser of 2023 or newer.`;
  const nearest = (error.nearest ?? []).map((name) => button(name, () => go({ page: 'ticker', ticker: name, at: '' })));
  line('failure', text, ...(nearest.length ? nearest : [button('Try again', () => show())]));
  line('progress');
  byId('main').classList.add('old');
  if (!isTold) console.error(error);
}

function sayOfLake() {
  const tickers = byId('tickers');
  const names = about.tickers.join();
  if (tickers.dataset.names !== names) tickers.replaceChildren(...about.tickers.map((name) => new Option(name)));
  tickers.dataset.names = names;
  byId('ticker').value = state.ticker ?? '';
  const total = about.tickers_in_lake ?? about.tickers.length;
  const some = about.tickers.length < total ? `${about.tickers.length} of ${total}` : total;
  byId('about').textContent = about.last ? `${some} tickers, to ${about.last}` : 'no bars yet';
  byId('about').title = `${about.lake}, read ${about.read_at}`;
  const behind = [];
  if (!embedded && about.expected && about.last < about.expected) behind.push(`The last session expected is ${about.expected}; the lake has bars to ${about.last}.`);
  if (about.last_features && about.last_features < about.last) behind.push(`Indicators are shown to ${about.last_features}, the lake has bars to ${about.last}.`);
  if (about.notice) behind.push(about.notice);
  line('stale', behind.join(' '));
  if (embedded && about.as_of) line('past', `The past: what the lake said as of ${about.as_of}.`);
}

// Look whether the lake has changed while the page is open.
async function look() {
  if (embedded || state.as_of || !about || document.hidden) return;
  const mine = turn;
  try {
    const now = await fetched('about');
    if (mine !== turn || now.digest === about.digest) return;
    const newer = now.last > about.last ? `Shown to ${about.last}, the lake has ${now.last}.` : 'The lake has changed since this was drawn.';
    if (!byId('stale').textContent.startsWith(newer)) line('stale', newer, button('Show it', () => show()));
  } catch (error) {
    if (mine === turn) fail(error);
  }
}

// Say to screen readers.
let said;
function tell(text) {
  clearTimeout(said);
  said = setTimeout(() => (byId('live').textContent = text), SLOW);
}

// ---- theme

const dark = matchMedia('(prefers-color-scheme: dark)');
const THEMES = { system: '◐', light: '☀', dark: '☾' };

// The remembered theme. A file in a sandbox has no storage.
function theme(chosen) {
  try {
    if (chosen) localStorage.setItem('theme', chosen);
    return Object.hasOwn(THEMES, localStorage.getItem('theme') ?? '') ? localStorage.getItem('theme') : 'system';
  } catch {
    return chosen ?? 'system';
  }
}

function setTheme(chosen) {
  const name = theme(chosen);
  document.documentElement.dataset.theme = name === 'system' ? (dark.matches ? 'dark' : 'light') : name;
  byId('theme').textContent = THEMES[name];
  byId('theme').dataset.chosen = name;
  byId('theme').setAttribute('aria-label', `Theme: ${name}`);
  byId('theme').title = `Theme: ${name}`;
}

const colorOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// ---- keys

const KEYS = [['/', 'to the box of tickers'], ['1 to 4', 'the pages'], ['?', 'this help']];

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || byId('help').open) return;
  if (event.target.matches('input, select, textarea')) {
    if (event.key === 'Escape') event.target.blur();
    return;
  }
  const number = Object.keys(shownPages())[Number(event.key) - 1];
  if (event.key === '/') byId('ticker').select();
  else if (event.key === '?') openHelp();
  else if (/^[1-9]$/.test(event.key) && number) go({ page: number });
  else if (!pages[state.page].key?.(event)) return;
  event.preventDefault();
}

function openHelp() {
  const tradingview = element('a', '', 'https://www.tradingview.com/'); // its notice asks for the link
  Object.assign(tradingview, { href: tradingview.textContent, rel: 'noreferrer', target: '_blank' });
  const rows = [...(pages[state.page].keys ?? []), ...KEYS];
  byId('help').replaceChildren(
    element('h2', '', 'Keys'),
    element('dl', '', ...rows.flatMap(([key, text]) => [element('dt', '', key), element('dd', '', text)])),
    element('p', 'name', 'Charts: TradingView Lightweight Charts™, Copyright © 2026 TradingView, Inc., ', tradingview, ', Apache License 2.0.'),
    button('Close', () => byId('help').close()),
  );
  byId('help').showModal();
}

// ---- start

function start() {
  for (const [name, page] of Object.entries(shownPages())) {
    const made = button(page.title, () => go({ page: name }));
    made.dataset.page = name;
    byId('pages').append(made);
  }
  for (const [name, page] of Object.entries(pages)) {
    const section = element('section', '');
    section.dataset.page = name;
    section.setAttribute('aria-label', page.title);
    byId('main').append(section);
    page.build(section);
  }
  for (const range of Object.keys(RANGES)) {
    const made = button(range, () => {
      pages[state.page].reset?.();
      go({ range, at: '' });
    });
    made.dataset.range = range;
    byId('ranges').append(made);
  }
  byId('moment').hidden = Boolean(embedded);
  byId('search').addEventListener('submit', (event) => {
    event.preventDefault();
    byId('ticker').blur(); // so that the arrow keys move the crosshair
    const name = byId('ticker').value.trim().toUpperCase();
    if (name) go({ page: 'ticker', ticker: name, at: '' });
  });
  byId('ticker').addEventListener('change', () => byId('search').requestSubmit());
  // While a year is typed, its first digits are a year too.
  byId('as_of').addEventListener('change', ({ target }) => (!target.value || target.value > '1900') && go({ as_of: target.value }));
  byId('theme').addEventListener('click', () => {
    const names = Object.keys(THEMES);
    setTheme(names[(names.indexOf(theme()) + 1) % names.length]);
    redraw();
  });
  byId('help_button').addEventListener('click', openHelp);
  document.addEventListener('keydown', pressed);
  dark.addEventListener('change', () => {
    setTheme();
    redraw();
  });
  addEventListener('popstate', () => {
    state = stateOf(address());
    show();
  });
  document.addEventListener('visibilitychange', look);
  setInterval(look, LOOK);
  setTheme();
  state = stateOf(address());
  show();
}

const address = () => (embedded ? location.hash : location.pathname + location.search);
const redraw = () => pages[state.page].redraw?.();

document.addEventListener('DOMContentLoaded', start);
