// Speaks in a call, for scripts that cannot: `node audio.mjs TYPE ID USER TOKEN SPEED RECORDING…`. Ends when everything is sent.

import { Talk } from './lib/host.mjs';

const [call_type, id, user_id, as, speed, ...recordings] = process.argv.slice(2);
const talk = await Talk.open(call_type, id, user_id, { as });
for (const name of recordings) await talk.say(name, speed ? { speed: Number(speed) } : {});
await talk.close();
