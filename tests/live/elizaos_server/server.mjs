// A real elizaOS server with one agent, whose model is the stub below. Settings come by environment
// (see tests/live/elizaos.py). A second, tiny server on CONTROL_PORT takes `POST {text, asAgent?}`,
// hands the text to the agent and answers `{runId, roomId, error}` when the run is over.

import { randomUUID } from "node:crypto";
import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

import { EventType, ModelType } from "@elizaos/core";
import bootstrapPlugin from "@elizaos/plugin-bootstrap";
import { AgentServer } from "@elizaos/server";

const agentId = process.env.AGENT_ID;

// What the agent decides to do, by the word in brackets in the user's text.
const scenarios = {
  simple: { actions: "REPLY", text: "Hello." },
  lookup: { actions: "REPLY,LOOK_UP", text: "I am looking it up." },
  broken: { actions: "REPLY,BREAK", text: "This will not work." },
  ignore: { actions: "IGNORE", text: "" },
};

async function text(runtime, { prompt }) {
  await sleep(15);
  const [, scenario] = prompt.match(/\[(simple|lookup|broken|ignore|fail)\]/) ?? [];
  if (scenario === "fail") throw new Error("model overloaded");
  const { actions, text } = scenarios[scenario] ?? scenarios.simple;
  return `<response><thought>${scenario}</thought><actions>${actions}</actions><providers></providers><text>${text}</text></response>`;
}

const modelPlugin = {
  name: "stub-model",
  description: "Answers from a fixed table.",
  models: {
    [ModelType.TEXT_SMALL]: text,
    [ModelType.TEXT_LARGE]: text,
    [ModelType.TEXT_EMBEDDING]: async () => new Array(384).fill(0.05),
  },
  actions: [
    {
      name: "LOOK_UP",
      description: "Looks something up with a model call of its own.",
      validate: async () => true,
      handler: async (runtime) => {
        const answer = await runtime.useModel(ModelType.TEXT_SMALL, { prompt: "Sum it up. [simple]" });
        return { success: true, text: answer };
      },
      examples: [],
    },
    {
      name: "BREAK",
      description: "Reports a failure.",
      validate: async () => true,
      handler: async () => ({ success: false, text: "it broke", error: new Error("it broke") }),
      examples: [],
    },
  ],
};

const server = new AgentServer();
await server.start({
  port: Number(process.env.SERVER_PORT),
  agents: [
    {
      character: {
        id: agentId,
        name: "Stub Agent",
        bio: ["Answers the tests."],
        settings: {},
        // Short ones of our own: the built-in prompts are up to 9 kB each.
        templates: {
          messageHandlerTemplate: "Decide what to do.\n{{recentMessages}}",
          replyTemplate: "Answer.\n{{recentMessages}}",
          reflectionTemplate: "Look back.\n{{recentMessages}}",
        },
      },
      plugins: [bootstrapPlugin, modelPlugin],
    },
  ],
});

const runIds = new Map();
server.getAgent(agentId).registerEvent(EventType.RUN_STARTED, async ({ messageId, runId }) => {
  runIds.set(messageId, runId);
});

async function run({ text, asAgent = false }) {
  const [id, roomId] = [randomUUID(), randomUUID()];
  const message = {
    id,
    roomId,
    entityId: asAgent ? agentId : randomUUID(),
    content: { text, source: "client_chat" },
  };
  let error = null;
  try {
    await server.elizaOS.handleMessage(agentId, message);
  } catch (problem) {
    error = problem.message;
  }
  return { runId: runIds.get(id), roomId, error };
}

http
  .createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(body ? await run(JSON.parse(body)) : { ready: true }));
  })
  .listen(Number(process.env.CONTROL_PORT), "127.0.0.1");
