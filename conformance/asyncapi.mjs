// Reads an AsyncAPI document with the parser of the AsyncAPI initiative and fails on every error and warning.
import { Parser, fromFile } from "@asyncapi/parser";

const error = 0;
const warning = 1;

const { document, diagnostics } = await fromFile(new Parser(), process.argv[2]).parse();
for (const d of diagnostics.filter((d) => d.severity === error || d.severity === warning)) {
  console.error(`${d.code} at ${d.path.join(".")}: ${d.message}`);
  process.exitCode = 1;
}
if (!document) {
  console.error("the document is not valid");
  process.exitCode = 1;
} else {
  const messages = document.channels().all().flatMap((c) => c.messages().all());
  console.log(`AsyncAPI ${document.version()}, ${document.channels().all().length} channels, ${messages.length} messages`);
}
