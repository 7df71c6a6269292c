/** Quantiles of the latency histograms: bucket i counts values in [2^i, 2^(i+1)) ns. */

/** The value below which `fraction` of the counted values lie, by even spread within a bucket; 0 when empty. */
export function quantile(histogram: number[], fraction: number): number {
  const total = histogram.reduce((sum, count) => sum + count, 0);
  const rank = fraction * total;
  let below = 0;
  for (const [bucket, count] of histogram.entries()) {
    if (count > 0 && below + count >= rank) {
      const low = bucket === 0 ? 0 : 2 ** bucket;
      return low + (2 ** (bucket + 1) - low) * ((rank - below) / count);
    }
    below += count;
  }
  return 0;
}
