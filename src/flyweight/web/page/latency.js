// The latency protocol of runtime/timing.py in a browser: warm up until steady, then time single runs, none left out.
"use strict";

const EFFORT = { samples: 200, enough: 60, softSeconds: 0.8, hardSeconds: 6, warmupSeconds: 0.8 };
const ROUNDS = 5; // each with a session of its own: a page has no fresh processes
const STEADY = 1.05, WINDOWS = 3, WINDOW_RUNS = 10, WINDOW_MS = 10, WINDOW_MOST_MS = 100;
const TICKS = 20; // a run shorter than so many ticks of the clock cannot be timed alone
const FULL_N = 299; // with fewer samples than this in all only p50 is given
const MEANS = 58; // samples of a round where each is a mean of several runs: 5 rounds stay below FULL_N, p50 only

/** Return the smallest step of this browser's clock, in ms; they make it coarse against spying. */
function clockStep() {
  let step = Infinity;
  for (let i = 0; i < 40; i++) {
    const before = performance.now();
    let now = before;
    while (now === before) now = performance.now();
    step = Math.min(step, now - before);
  }
  return step;
}

/** Let the browser draw; never inside what is timed. */
const breathe = () => new Promise((done) => setTimeout(done));

/** Run until three windows in a row agree, or the time is over. */
async function warmUp(run) {
  const means = [], start = performance.now();
  for (let runs = 0; ;) {
    const before = performance.now();
    let count = 0, spent = 0;
    do {
      await run();
      count++;
      spent = performance.now() - before;
    } while (spent < WINDOW_MOST_MS && (count < WINDOW_RUNS || spent < WINDOW_MS));
    runs += count;
    means.push(spent / count);
    await breathe();
    const last = means.slice(-WINDOWS);
    const steady = last.length === WINDOWS && Math.max(...last) <= STEADY * Math.min(...last);
    if (steady || performance.now() - start > EFFORT.warmupSeconds * 1000) {
      return { steady, warmup_runs: runs, mean: means.at(-1) };
    }
  }
}

/** Time single runs; where the clock is too coarse for that, means of as many runs as it needs. */
async function timed(run, step) {
  const { steady, warmup_runs, mean } = await warmUp(run);
  const together = mean >= TICKS * step ? 1 : Math.ceil((TICKS * step) / Math.max(mean, 1e-6));
  const most = together > 1 ? MEANS : EFFORT.samples, samples = [], start = performance.now();
  let breath = start;
  for (;;) {
    const before = performance.now();
    for (let i = 0; i < together; i++) await run();
    const after = performance.now();
    samples.push(Math.max(1, Math.round(((after - before) / together) * 1e6)));
    const seconds = (after - start) / 1000;
    const soft = seconds >= EFFORT.softSeconds && samples.length >= EFFORT.enough;
    if (samples.length >= most || soft || seconds >= EFFORT.hardSeconds) break;
    if (after - breath > 100) {
      await breathe();
      breath = performance.now();
    }
  }
  return { samples_ns: samples, steady, warmup_runs, cpu_share: null, together };
}

/** Return what the three clocks, and the model's once more, say of a session of its own. */
async function timeRound(network, photo, step) {
  const session = await network.newSession(), { planes } = await network.golden();
  const each = network.channels * network.size ** 2, channels = network.channels;
  const tensors = Array.from({ length: planes.length / each }, (_, i) =>
    network.tensor(planes.slice(i * each, (i + 1) * each)));
  let turn = 0;
  const model = () => network.logits(tensors[turn++ % tensors.length], session);
  const decoded = await decode(photo, channels, Infinity);
  const fit = () => network.logits(network.tensor(network.prepare(decoded)), session);
  const encoded = async () =>
    network.logits(network.tensor(network.prepare(await decode(photo, channels, Infinity))), session);
  const clocks = { model, again: model, preprocess_model: fit, encoded }, found = {};
  for (const name of shuffled(Object.keys(clocks))) found[name] = await timed(clocks[name], step);
  await session.release();
  return found;
}

function shuffled(names) {
  return names.map((name) => [Math.random(), name]).sort((a, b) => a[0] - b[0]).map(([, name]) => name);
}

/** Measure this device; `progress(done, of)` is called after each round. */
async function measure(network, progress) {
  const photo = new Blob([await inlined("photo")], { type: "image/jpeg" });
  const step = clockStep(), rounds = [];
  let hidden = document.hidden;
  const notice = () => { hidden ||= document.hidden; };
  document.addEventListener("visibilitychange", notice);
  for (let i = 0; i < ROUNDS; i++) {
    rounds.push(await timeRound(network, photo, step));
    progress(i + 1, ROUNDS);
    await breathe();
  }
  document.removeEventListener("visibilitychange", notice);
  return { rounds, step, hidden, golden: await network.agreement() };
}

/** Return quantiles in ms by clock: {p50, p90, p99, n, together, steady}; null where the samples cannot say. */
function summary(rounds, name) {
  const runs = rounds.map((round) => round[name]), samples = runs.flatMap((run) => run.samples_ns);
  const together = Math.max(...runs.map((run) => run.together)), slow = samples.length < FULL_N;
  const at = (q) => {
    if (q > 0.5 && (slow || together > 1)) return null;
    const found = quantile(samples, q);
    return found && { ms: found.value / 1e6, low: found.low / 1e6, high: found.high / 1e6 };
  };
  const steady = runs.every((run) => run.steady);
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), n: samples.length, together, slow, steady };
}
