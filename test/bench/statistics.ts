/** The middle of a sample, and what a round's figures come to. */

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle];
  if (upper === undefined) throw new Error('median of nothing');
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2;
}

/** The middle of the ratios of pairs measured in the same round: slow rounds slow both and cancel out. */
export function pairedRatio(ours: readonly number[], peer: readonly number[]): number {
  const ratios = ours.flatMap((value, round) => {
    const other = peer[round];
    return other === undefined ? [] : [value / other];
  });
  return median(ratios);
}
