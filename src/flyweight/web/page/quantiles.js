// Quantiles with order-statistic intervals, as measure/statistics.py.
"use strict";

/** Return {value, low, high} of the q-quantile, or null where no pair of ranks covers it with `level`. */
function quantile(samples, q, level = 0.95) {
  const sorted = Float64Array.from(samples).sort(), ranks = ranksOf(sorted.length, q, level);
  if (!ranks) return null;
  const value = sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)];
  return { value, low: sorted[ranks[0] - 1], high: sorted[ranks[1] - 1] };
}

/** Return the ranks, from 1, of the narrowest pair that covers the quantile. */
function ranksOf(n, q, level) {
  if (n < 2) return null;
  const cdf = cumulative(n, q);
  let best = null;
  for (let low = 1; low < n; low++) {
    const wanted = cdf[low - 1] + level - 1e-12;
    let high = low;
    while (high <= n && cdf[high - 1] < wanted) high++;
    if (high > n) break;
    const lean = Math.abs((low + high) / 2 - q * (n + 1));
    if (!best || high - low < best[0] || (high - low === best[0] && lean < best[1])) best = [high - low, lean, low, high];
  }
  return best && [best[2], best[3]];
}

/** Return P(B <= i) of the number B of n samples below the q-quantile. */
function cumulative(n, q) {
  const logs = [0];
  for (let i = 1; i <= n; i++) logs.push(logs[i - 1] + Math.log(i));
  let sum = 0;
  return Float64Array.from({ length: n + 1 }, (_, i) => {
    sum += Math.exp(logs[n] - logs[i] - logs[n - i] + i * Math.log(q) + (n - i) * Math.log1p(-q));
    return sum;
  });
}

function median(values) {
  const sorted = Float64Array.from(values).sort(), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
