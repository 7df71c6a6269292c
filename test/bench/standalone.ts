/** Experiments on parts alone, without a mounted system: a function from settings to rows, tables and plots. */
import { rowTable } from './report.ts';
import type { Row } from './rows.ts';

export interface StandaloneSettings {
  rounds: number;
  quick: boolean;
  interrupted: () => boolean;
}

export interface StandaloneResult {
  rows: Row[];
  /** Tables for the terminal. */
  text: string;
  /** Peers that could not be measured, and why. */
  missing: Record<string, string>;
  /** SVG by file name. */
  plots: Record<string, string>;
}

export type Standalone = (settings: StandaloneSettings) => Promise<StandaloneResult>;

/** An experiment whose rows say it all, but for plots. */
export function withPlots(
  run: (settings: StandaloneSettings) => Promise<Row[]>,
  plotsOf: (rows: readonly Row[]) => Record<string, string>,
): Standalone {
  return async (settings) => {
    const rows = await run(settings);
    return { rows, text: rowTable(rows), missing: {}, plots: plotsOf(rows) };
  };
}

/** An experiment whose rows say it all. */
export function rowsOnly(run: (settings: StandaloneSettings) => Promise<Row[]>): Standalone {
  return async (settings) => {
    const rows = await run(settings);
    return { rows, text: rowTable(rows), missing: {}, plots: {} };
  };
}
