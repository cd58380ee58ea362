// What the page says, in English and Chinese.

const ENGLISH = {
  title: "Antiphon",
  skip: "Skip to the text",
  model: "Model",
  modes: "Ask or talk",
  ask: "Ask",
  talk: "Talk",
  source: "Your words",
  answer: "The answer",
  hint: "Write something …",
  recent: "Lately asked",
  "answer.help":
    "Arrow keys walk through the words and show where the model looked; Enter shows what it might have said instead.",
  options: "How it searches",
  beam: "Beam width",
  best: "Answers",
  sample: "Draw at random",
  temperature: "Temperature",
  required: "Must hold",
  banned: "Must not hold",
  "words.hint": "with commas",
  adapter: "Adapter",
  "adapter.none": "none",
  usual: "usual",
  prefix: "What if it had begun",
  "prefix.hint": "the first words of another answer",
  clear: "Let it choose",
  alternatives: "Other answers",
  score: "score",
  inside: "Look inside",
  attention: "Attention",
  tree: "Beam tree",
  instead: "Instead",
  "instead.of": "Instead of “{word}”",
  "instead.none": "The model sees no other way here.",
  ends: "end",
  "ends.long": "the answer ends here",
  sure: "right with a probability of {percent}",
  seconds: "{seconds} s",
  copy: "Copy",
  copied: "Copied",
  doubt:
    "The stronger the shade under a word, the less sure the model was. Point at a word to see where it looked; press it to see what else it might have said.",
  "doubt.heard": "The stronger the shade under a word, the less sure the model was. Press a word to hear it.",
  "doubt.only": "The stronger the shade under a word, the less sure the model was.",
  private: "What you write goes to this server and nowhere else.",
  "private.here": "The model runs in this page. What you write never leaves this device.",
  loading: "Fetching the model: {percent}",
  lost: "The model cannot be fetched",
  "failed.here": "The model failed on this input",
  broken: "The text holds a character that is none",
  long: "The text is longer than the model reads",
  unwritable: "The model cannot write this",
  many: "There are more answers asked for than the beam is wide",
  remember: "Keep my last inputs on this device",
  api: "The interface for programs",
  theme: "Colours: {theme}",
  "theme.auto": "as the system",
  "theme.light": "light",
  "theme.dark": "dark",
  language: "中文",
  busy: "Many are asking. Once more in {seconds} s …",
  failed: "The server did not answer as it should",
  unreachable: "The server cannot be reached",
  "unreachable.do": "see whether it is still running, then ask again",
  "problem.got": "Found: {got}",
  "problem.do": "What helps: {do}",
  again: "Ask again",
  close: "Close",
  key: "Key of this server",
  "key.use": "Use it",
  "heat.help":
    "A row is a word of the answer, a column a word of the source: the stronger the colour, the more the model looked there.",
  "heat.cell": "“{target}” looked at “{source}”: {percent}",
  "heat.none": "This model shows no attention for this answer.",
  "heat.long": "The first {count} words are shown.",
  "tree.help":
    "Each step shows what the model thinks may come next; the thicker the line, the likelier. Bold is what the answer says, a dot what other answers say. Open a way, follow it, and have it answer from there.",
  "tree.start": "start",
  "tree.from": "Answer from here",
  "tree.path": "probability so far {percent}",
  "tree.width": "Ways",
  "tree.node": "{text}, {percent}",
  "tree.empty": "(nothing yet)",
  facts: "Facts",
  subject: "Subject",
  relation: "Relation",
  object: "Object",
  "fact.add": "Add a fact",
  "fact.remove": "Remove the fact {number}",
  "fact.hint": "Paste lines such as “Aarhus | leader | Jacob Bundsgaard” into any field.",
  said: "The conversation",
  "talk.hint": "Say something …",
  send: "Send",
  fresh: "Begin anew",
  you: "You",
  it: "The model",
  thinking: "thinking",
  "talk.empty": "Say something, and it answers. It remembers what was said.",
  record: "Record",
  recording: "Stop recording ({seconds} s)",
  choose: "Choose a file",
  "choose.or": "or drop one here",
  "record.no": "The microphone cannot be used",
  "record.do": "allow it in the browser, or choose a file",
  "record.secure": "open the page as http://localhost or over https, or choose a file",
  "play.word": "Play from “{word}”",
  steps: "Numbers, and the band that holds nine in ten",
  "steps.plain": "Numbers",
  unfinished: "The answer was cut off.",
  empty: "The model answers with nothing.",
};

const CHINESE = {
  title: "Antiphon 应答",
  skip: "跳到输入框",
  model: "模型",
  modes: "提问或对话",
  ask: "提问",
  talk: "对话",
  source: "你说",
  answer: "它答",
  hint: "写点什么……",
  recent: "最近问过",
  "answer.help": "方向键在词间移动，显示模型看了哪里；回车显示它还可能说什么。",
  options: "搜索方式",
  beam: "束宽",
  best: "答案数",
  sample: "随机抽取",
  temperature: "温度",
  required: "必须包含",
  banned: "不得包含",
  "words.hint": "用逗号分隔",
  adapter: "适配器",
  "adapter.none": "不用",
  usual: "默认",
  prefix: "如果它这样开头",
  "prefix.hint": "另一种答案的开头",
  clear: "让它自己选",
  alternatives: "其他答案",
  score: "得分",
  inside: "看看里面",
  attention: "注意力",
  tree: "搜索树",
  instead: "换一种说法",
  "instead.of": "不说“{word}”，还可以说",
  "instead.none": "模型在这里看不到别的路。",
  ends: "结束",
  "ends.long": "答案到此结束",
  sure: "正确的概率为 {percent}",
  seconds: "{seconds} 秒",
  copy: "复制",
  copied: "已复制",
  doubt: "词下的颜色越浓，模型越没有把握。指向一个词，看它依据了哪里；点按它，看还可以怎么说。",
  "doubt.heard": "词下的颜色越浓，模型越没有把握。点按一个词，再听一遍。",
  "doubt.only": "词下的颜色越浓，模型越没有把握。",
  private: "你写的内容只发给这台服务器，不会去别处。",
  "private.here": "模型就在本页里运行，你写的内容不会离开这台设备。",
  loading: "正在取模型：{percent}",
  lost: "取不到模型",
  "failed.here": "模型处理这段文字时出错",
  broken: "文字里有不成字符的编码",
  long: "文字比模型能读的更长",
  unwritable: "模型写不出这个",
  many: "要的答案比搜索的宽度还多",
  remember: "在这台设备上记住最近的输入",
  api: "编程接口",
  theme: "颜色：{theme}",
  "theme.auto": "跟随系统",
  "theme.light": "浅色",
  "theme.dark": "深色",
  language: "English",
  busy: "提问的人很多，{seconds} 秒后再试……",
  failed: "服务器的回答不正常",
  unreachable: "连不上服务器",
  "unreachable.do": "看看它是否还在运行，然后再问一次",
  "problem.got": "得到的是：{got}",
  "problem.do": "可以这样做：{do}",
  again: "再问一次",
  close: "关闭",
  key: "服务器的密钥",
  "key.use": "使用",
  "heat.help": "一行是答案的一个词，一列是原文的一个词；颜色越浓，模型看得越多。",
  "heat.cell": "“{target}”看“{source}”：{percent}",
  "heat.none": "这个模型没有给出这个答案的注意力。",
  "heat.long": "只显示前 {count} 个词。",
  "tree.help":
    "每一步显示模型认为接下来可能说的话，线越粗越可能。粗体是答案的路，圆点是其他答案的路。展开一条路，跟着走，让它从那里回答。",
  "tree.start": "开头",
  "tree.from": "从这里回答",
  "tree.path": "到此的概率 {percent}",
  "tree.width": "分支",
  "tree.node": "{text}，{percent}",
  "tree.empty": "（还没有）",
  facts: "事实",
  subject: "主语",
  relation: "关系",
  object: "宾语",
  "fact.add": "添加事实",
  "fact.remove": "删除第 {number} 条事实",
  "fact.hint": "可以把“奥胡斯 | 市长 | 雅各布”这样的行粘贴到任一格里。",
  said: "对话内容",
  "talk.hint": "说点什么……",
  send: "发送",
  fresh: "重新开始",
  you: "你",
  it: "模型",
  thinking: "正在想",
  "talk.empty": "说点什么，它会回答，并记得说过的话。",
  record: "录音",
  recording: "停止录音（{seconds} 秒）",
  choose: "选择文件",
  "choose.or": "或拖到这里",
  "record.no": "无法使用麦克风",
  "record.do": "在浏览器里允许使用，或选择文件",
  "record.secure": "用 http://localhost 或 https 打开本页，或选择文件",
  "play.word": "从“{word}”开始播放",
  steps: "数值，以及十有其九的区间",
  "steps.plain": "数值",
  unfinished: "答案被截断了。",
  empty: "模型的答案是空的。",
};

const ALL = { en: ENGLISH, zh: CHINESE };
let words = ENGLISH;
let locale = "en";

/** A text by its name, with values put in. */
export function say(name, values = {}) {
  return words[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

/** A probability as people write it. */
export function percent(value) {
  const tiny = value > 0 && value < 0.001;
  const digits = tiny
    ? { maximumSignificantDigits: 1 }
    : { maximumFractionDigits: value > 0 && value < 0.0995 ? 1 : 0 };
  return new Intl.NumberFormat(locale, { style: "percent", ...digits }).format(value);
}

/** A number with so many digits after the point. */
export function decimal(value, digits) {
  const format = new Intl.NumberFormat(locale, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return format.format(value).replace("-", "\u2212");
}

/** Puts the page into a language, "en" or "zh"; what is made later asks `say`, and hears of a change by `language`. */
export function speak(language) {
  locale = language === "zh" ? "zh" : "en";
  words = ALL[locale];
  document.documentElement.lang = locale === "zh" ? "zh-Hans" : "en";
  document.title = say("title");
  for (const each of document.querySelectorAll("[data-words]")) each.textContent = say(each.dataset.words);
  for (const each of document.querySelectorAll("[data-words-label]"))
    each.setAttribute("aria-label", say(each.dataset.wordsLabel));
  for (const each of document.querySelectorAll("[data-words-hint]")) each.placeholder = say(each.dataset.wordsHint);
  document.dispatchEvent(new Event("language"));
}

/** The language that is spoken. */
export const spoken = () => locale;

/** The language to begin with: the one chosen before, or the browser's. */
export const preferred = (chosen) => chosen || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
