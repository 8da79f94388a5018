'use strict';
// The page Signals: the newest session and the latest signal of every ticker.

pages.signals = {
  title: 'Signals',

  build(section) {
    this.table = element('div', '');
    this.table.id = 'signals_table';
    section.append(element('h2', '', 'Latest signals of all tickers'), this.table);
  },

  async open() {
    const rows = await answer('signals');
    const tickerOf = (row) => element('td', 'short', about.tickers.includes(row.ticker) ? linkTo({ page: 'ticker', ticker: row.ticker }, row.ticker) : row.ticker);
    const number = (column, unit) => (row) => valueOf('td', column, row[column], unit);
    this.table.replaceChildren(tableOf([
      ['Ticker', tickerOf], ['Latest signal', (row) => row.signal], ['on', (row) => row.signal_date],
      ['tradable from', (row) => row.tradable_from], ['Newest session', (row) => row.date],
      ['Close', number('close', 'price')], ['Change', number('return_1d', 'change')], ['RSI 14', number('rsi_14')],
      ['MACD histogram', number('macd_hist')], ['Volatility 20', number('volatility_20', 'fraction')],
    ], rows));
  },
};
