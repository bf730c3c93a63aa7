// Checks, and a runner of scenarios, for Node and for browsers.
//
// In: scenarios, each a name and a function. Out: a line a check, and how many failed. What was expected and what came is said
// where a check fails; its scenario ends there, the others go on.

export class Unexpected extends Error {}

const shown = (value) => {
  const text = JSON.stringify(value, (_, part) => (typeof part === 'bigint' ? `${part}n` : part));
  return text?.length > 1500 ? `${text.slice(0, 1500)}…` : text;
};

const same = (a, b) => {
  if (Object.is(a, b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => key in b && same(a[key], b[key]));
};

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `condition` gives something, and gives that. */
export const until = async (what, condition, ms = 15_000) => {
  const end = Date.now() + ms;
  for (;;) {
    const got = await condition();
    if (got) return got;
    if (Date.now() > end) throw new Unexpected(`expected within ${ms / 1000} s: ${what}; it did not come`);
    await sleep(20);
  }
};

/** How a client says that a request was refused: the answer's status, the code, the message. */
const refusal = (error) => ({
  status: error.response?.status ?? error.metadata?.responseCode ?? error.status,
  code: error.code,
  message: [error.message, error.cause, error.code].filter((part) => part instanceof Error || part === error.message).join(': '),
});

/** The checks of one scenario. */
export class Checks {
  constructor(say, scenario) {
    this.say = say;
    this.scenario = scenario;
    this.count = 0;
  }

  ok(what) {
    this.count += 1;
    this.say(`ok   ${this.scenario}: ${what}`);
  }

  equal(what, expected, got) {
    if (!same(expected, got)) throw new Unexpected(`${what}: expected ${shown(expected)}, got ${shown(got)}`);
    this.ok(what);
  }

  that(what, condition, got) {
    if (!condition) throw new Unexpected(`${what}: got ${shown(got)}`);
    this.ok(what);
  }

  /** The answer is an error of this status and code, whose message holds `message`. */
  async refused(what, expected, request) {
    const { status, code, message = '' } = expected;
    let answer;
    try {
      answer = await (typeof request === 'function' ? request() : request);
    } catch (error) {
      const got = refusal(error);
      const is_it = got.code === code && (status === undefined || got.status === status) && got.message.includes(message);
      if (!is_it) throw new Unexpected(`${what}: expected the refusal ${shown(expected)}, got ${shown(got)}`);
      this.ok(what);
      return got.message;
    }
    throw new Unexpected(`${what}: expected the refusal ${shown(expected)}, got the answer ${shown(answer)}`);
  }

  /** The answer is an error of the clients' format, whichever. */
  async not_offered(what, request) {
    let got;
    try {
      got = { answer: await request() };
    } catch (error) {
      got = refusal(error);
      if (got.status >= 400 && got.status < 500 && Number.isInteger(got.code)) return;
    }
    throw new Unexpected(`${what}, which the server does not have: expected a 4xx with a code, got ${shown(got)}`);
  }
}

/** Runs scenarios, `at_once` of them at a time; how many failed. */
export const run = async (client, scenarios, say, { at_once = 4, only } = {}) => {
  const waiting = scenarios.filter(([name]) => !only || only.some((part) => name.includes(part)));
  const total = waiting.length;
  let failed = 0;
  const work = async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      const [name, scenario] = next;
      const checks = new Checks(say, `${client}: ${name}`);
      const began = Date.now();
      try {
        await scenario(checks);
        say(`done ${client}: ${name}: ${checks.count} checks, ${((Date.now() - began) / 1000).toFixed(1)} s`);
      } catch (error) {
        failed += 1;
        const why = error instanceof Unexpected ? error.message : (error.stack ?? String(error));
        const answer = error.response?.data ? ` ${shown(error.response.data)}` : '';
        say(`FAIL ${client}: ${name}: ${why}${answer}`);
      }
    }
  };
  await Promise.all(Array.from({ length: at_once }, work));
  say(`${failed ? 'FAIL' : 'pass'} ${client}: ${total - failed} of ${total} scenarios`);
  return failed;
};

/** Nanoseconds of an RFC 3339 time in UTC. */
export const nanos = (time) => {
  const parts = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z$/.exec(time);
  if (!parts) throw new Unexpected(`expected a time as RFC 3339 in UTC, got ${shown(time)}`);
  return BigInt(Date.parse(`${parts[1]}Z`)) * 1_000_000n + BigInt((parts[2] ?? '').padEnd(9, '0'));
};

/** RFC 3339 with nine decimals. */
export const rfc3339 = (at) => {
  const [seconds, fraction] = [at / 1_000_000_000n, at % 1_000_000_000n];
  const whole = new Date(Number(seconds) * 1000).toISOString().slice(0, 19);
  return `${whole}.${String(fraction).padStart(9, '0')}Z`;
};

/** What was said and when, counted from the first word on. */
export const spoken = (captions) => {
  if (!captions.length) return [];
  const times = captions.map(({ start_time, end_time, stop_time }) => [nanos(start_time), nanos(end_time ?? stop_time)]);
  const zero = times[0][0];
  return captions.map(({ text }, i) => ({ text, from: String(times[i][0] - zero), to: String(times[i][1] - zero) }));
};

/** The lines of a transcript. */
export const fragments = (jsonl) =>
  jsonl.split('\n').filter(Boolean).map((line) => JSON.parse(line));

/** The bytes that a transcript has if `offline` was said by `speaker_id`, the first of it at `from`. */
export const moved = (offline, speaker_id, from) => {
  if (!offline.length) return '';
  const by = nanos(from) - nanos(offline[0].start_time);
  const at = (time) => rfc3339(nanos(time) + by);
  const lines = offline.map(({ type, start_time, stop_time, text }) =>
    JSON.stringify({ type, start_time: at(start_time), stop_time: at(stop_time), speaker_id, text }));
  return `${lines.join('\n')}\n`;
};

/**
 * Starts and stops in every combination: 4 states × 8 requests, as [what runs, request, what runs then, whether it is refused].
 *
 * The path's process decides about errors; the flag's is changed only if needed.
 */
export const combinations = () => {
  const requests = [];
  for (const verb of ['start', 'stop']) {
    for (const process of ['transcription', 'captions']) {
      for (const with_other of [false, true]) requests.push({ verb, process, with_other });
    }
  }
  const rows = [];
  for (const transcription of [false, true]) {
    for (const captions of [false, true]) {
      for (const request of requests) {
        const runs = { transcription, captions };
        const wanted = request.verb === 'start';
        const refused = runs[request.process] === wanted;
        const other = request.process === 'captions' ? 'transcription' : 'captions';
        const after = { ...runs };
        if (!refused) after[request.process] = wanted;
        if (!refused && request.with_other) after[other] = wanted;
        rows.push({ runs, request, after, refused });
      }
    }
  }
  return rows;
};

export const named = ({ transcription, captions }) =>
  [transcription && 'transcription', captions && 'captions'].filter(Boolean).join(' and ') || 'nothing';
