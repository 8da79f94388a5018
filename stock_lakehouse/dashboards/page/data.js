'use strict';
// The page Data: what the tables hold, the quarantine, and the ledger of restated values.

pages.data = {
  title: 'Data',

  build(section) {
    this.section = section;
  },

  async open() {
    const { tables, quarantine, restatements } = await answer('data');
    const count = (column) => (row) => valueOf('td', column, row[column], 'count');
    const named = (id, made) => Object.assign(made, { id });
    const long = (cell) => (row) => element('td', 'text', cell(row));
    const some = (shownRows, rows) => (shownRows < rows ? `; the newest ${shownRows} are below` : '');
    const parts = [
      element('h2', '', 'Tables'),
      named('data_tables', tableOf([
        ['Table', (row) => row.table], ['Rows', count('rows')], ['Last session', (row) => row.last], ['', long((row) => row.description)],
      ], tables)),
      element('h2', '', 'Quarantine'),
      named('quarantine_rows', element('p', '', quarantine.rows
        ? `Delivered rows that were refused: ${written(quarantine.rows, 'count')}${some(quarantine.newest.length, quarantine.rows)}.`
        : 'No delivered row was refused.')),
    ];
    if (quarantine.rows) {
      parts.push(named('quarantine_reasons', tableOf([['Reason', long(([reason]) => reason)], ['Rows', (row) => count(1)(row)]], quarantine.reasons)));
      parts.push(named('quarantine_newest', tableOf([
        ['Ticker', (row) => row.ticker], ['Reasons', long((row) => row.reasons.join('; '))], ['Delivered text', long((row) => row.delivered)],
        ['File', (row) => row.file], ['Line', (row) => row.line_number], ['Landed', (row) => row.ingested_at],
      ], quarantine.newest)));
    }
    parts.push(element('h2', '', 'Restatements'), element('p', '', restatements.lines
      ? `Lines of the ledger: ${written(restatements.lines, 'count')}${some(restatements.newest.length, restatements.lines)}.`
      : 'No published value has changed.'));
    if (restatements.lines) {
      parts.push(named('restatements_newest', tableOf([
        ['When', (row) => row.restated_at], ['Ticker', (row) => row.ticker], ['Session', (row) => row.date],
        ['Columns', long((row) => row.columns.join(', '))], ['Old', (row) => row.old], ['New', (row) => row.new],
        ['Cause', (row) => row.cause], ['Rows', count('rows')], ['Table', (row) => row.table],
      ], restatements.newest)));
    }
    this.section.replaceChildren(...parts);
  },
};
