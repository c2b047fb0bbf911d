// Everybody's agents, for administrators.

import { $, h } from "./dom.js";
import { call, query, to } from "./api.js";
import { AgentList } from "./agents.js";
import { start } from "./shell.js";

start(async () => {
  const owners = new Map();
  let list;
  const owner = (agent) => {
    const id = agent.userId;
    if (!owners.has(id)) {
      owners.set(id, "");
      call(`/api/admin/users/${id}`).then(
        (user) => {
          owners.set(id, user.email);
          list.soon();
        },
        () => {},
      );
    }
    return h("a", { href: query(to("/admin/users"), { email: owners.get(id) }) }, owners.get(id) || id.slice(0, 8));
  };
  list = new AgentList({ path: "/api/admin/agents", fixed: { user: new URLSearchParams(location.search).get("user") }, extra: { name: "Owner", cell: owner } });
  $("#list").classList.add("wide-list");
  await list.load();
});
