// Sends events of every sort with the official CloudEvents SDK for JavaScript to the URL given as the first argument.
// Exits with 1, and says why on standard error, unless each is answered 202.
import { CloudEvent, HTTP } from "cloudevents";

const url = process.argv[2];
if (!url) {
  console.error("usage: node client.mjs URL");
  process.exit(2);
}

const common = { source: "/sdk/js", type: "com.example.sdk", time: "2026-03-14T20:00:01.120Z" };

const events = {
  json: { subject: "room-42", data: { text: "日本語 👩‍👩‍👧 é", amount: 5, list: [1.5, null, true] } },
  extensions: { tenant: "acme", priority: 5, urgent: true, dataschema: "https://example.com/schema", data: {} },
  text: { datacontenttype: "text/plain; charset=utf-8", data: "two\nlines, ünicode" },
  bytes: { datacontenttype: "application/octet-stream", data: Uint8Array.of(0, 1, 2, 254, 255) },
  empty: {},
};

// An HTTP header takes no character beyond Latin-1, and the SDK does not encode any, so attributes like these can only
// be sent in structured mode.
const structuredOnly = {
  unicode: { subject: "部屋 42 – 100%", tenant: "Zoë", data: { ok: true } },
};

async function send(mode, name, fields) {
  const { headers, body } = HTTP[mode](new CloudEvent({ ...common, id: `${mode}-${name}`, ...fields }));
  const response = await fetch(url, { method: "POST", headers, body });
  if (response.status !== 202) {
    throw new Error(`${mode} ${name}: answered ${response.status}: ${await response.text()}`);
  }
}

try {
  for (const [name, fields] of Object.entries(events)) {
    await send("binary", name, fields);
    await send("structured", name, fields);
  }
  for (const [name, fields] of Object.entries(structuredOnly)) {
    await send("structured", name, fields);
  }
} catch (err) {
  console.error(err);
  process.exit(1);
}
