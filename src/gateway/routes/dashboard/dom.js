// Building elements. Text from the gateway becomes text nodes, never markup.

export function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text ?? "";
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Seconds in words. */
export function ago(seconds) {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

/** The Markdown that models write most: code, headings, lists, emphasis, links. The rest stays as it is written. */
export function markdown(text) {
  const made = document.createDocumentFragment();
  const parts = text.split(/^```[^\n]*\n?/m);
  parts.forEach((part, index) => {
    if (index % 2) {
      const pre = document.createElement("pre");
      pre.append(element("code", part.replace(/\n$/, "")));
      made.append(pre);
    } else {
      made.append(...blocks(part));
    }
  });
  return made;
}

function blocks(text) {
  const made = [];
  let list;
  let lines = [];
  const flush = () => {
    if (lines.length) {
      const paragraph = document.createElement("p");
      lines.forEach((line, index) => paragraph.append(...(index ? [document.createElement("br")] : []), ...inline(line)));
      made.push(paragraph);
    }
    lines = [];
  };
  for (const line of text.split("\n")) {
    const item = line.match(/^\s*(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/);
    const heading = line.match(/^#{1,6}\s+(.*)$/);
    if (item) {
      flush();
      const kind = item[1] ? "UL" : "OL";
      if (list?.nodeName !== kind) {
        list = document.createElement(kind);
        if (item[2] && item[2] !== "1") list.setAttribute("start", item[2]);
        made.push(list);
      }
      const li = document.createElement("li");
      li.append(...inline(item[3]));
      list.append(li);
      continue;
    }
    if (!line.trim()) {
      flush();
      continue;
    }
    list = undefined;
    if (heading) {
      flush();
      const title = document.createElement("h4");
      title.append(...inline(heading[1]));
      made.push(title);
    } else {
      lines.push(line);
    }
  }
  flush();
  return made;
}

/** Code, bold, emphasis and links to the web in a line. */
function inline(text) {
  const pattern = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)/g;
  const made = [];
  let last = 0;
  for (const match of text.matchAll(pattern)) {
    made.push(text.slice(last, match.index));
    last = match.index + match[0].length;
    if (match[1]) made.push(element("code", match[1]));
    else if (match[2]) made.push(element("strong", match[2]));
    else if (match[3]) made.push(element("em", match[3]));
    else made.push(element("a", match[4], { href: match[5], rel: "noopener noreferrer", target: "_blank" }));
  }
  made.push(text.slice(last));
  return made.filter((part) => part !== "");
}
