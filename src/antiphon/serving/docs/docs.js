// Shows openapi.json: every route with what it reads and what it answers.
"use strict";

function element(name, text, ...children) {
  const made = document.createElement(name);
  made.textContent = text;
  made.append(...children);
  return made;
}

// A schema with its references put in.
function whole(schema, all, depth = 0) {
  if (schema === null || typeof schema !== "object" || depth > 12) return schema;
  if (Array.isArray(schema)) return schema.map((item) => whole(item, all, depth + 1));
  if (schema.$ref) return whole(all[schema.$ref.split("/").pop()], all, depth + 1);
  const kept = Object.entries(schema).filter(([key, value]) => key !== "title" || typeof value === "object");
  return Object.fromEntries(kept.map(([key, value]) => [key, whole(value, all, depth + 1)]));
}

function content(title, part, all) {
  return Object.entries((part && part.content) || {}).flatMap(([type, { schema }]) => [
    element("p", `${title} (${type})`),
    element("pre", JSON.stringify(whole(schema || {}, all), null, 1)),
  ]);
}

function route(path, method, about, all) {
  const name = element("summary", "", element("code", `${method.toUpperCase()} `), element("code", path));
  name.firstChild.className = "method";
  const made = element("details", "", name, element("p", about.description || ""));
  made.append(...content("reads", about.requestBody, all), ...content("answers", about.responses["200"], all));
  return made;
}

fetch("/openapi.json").then((answer) => answer.json()).then((about) => {
  const main = document.querySelector("main");
  main.textContent = "";
  for (const [path, methods] of Object.entries(about.paths))
    for (const [method, each] of Object.entries(methods)) main.append(route(path, method, each, about.components.schemas));
}).catch(() => { document.querySelector("main").textContent = "openapi.json cannot be read"; });
