# ruff: noqa: RUF001 - Chinese punctuation
"""A little Chinese: greetings, Flashplane, small sums, remembered words, tool calls."""

from worker.demo.dialogues.arithmetic import held_out
from worker.demo.dialogues.chance import Chance, Pool, assistant, user
from worker.demo.dialogues.example import Example
from worker.demo.dialogues.tool_calls import calling
from worker.demo.dialogues.tools import Parameter, Tool
from worker.demo.dialogues.turns import answered
from worker.demo.dialogues.values import city, name

TALK: tuple[tuple[Pool, str, str], ...] = (
    (Pool("你好", "你好！", "您好", "嗨", "早上好", "晚上好", "你好呀", "大家好"),
     "你好！有什么可以帮你？", "你好"),
    (Pool("谢谢", "谢谢你", "谢谢！", "非常感谢", "多谢"), "不客气！", "不客气"),
    (Pool("再见", "拜拜", "再见！", "晚安", "下次见"), "再见！", "再见"),
    (Pool("你是谁？", "你是谁", "你叫什么名字？", "介绍一下你自己。",
          "你是什么模型？", "你是人吗？"),
     "我是一个小型演示模型，采用 V4-Flash 架构。", "演示模型"),
    (Pool("你能做什么？", "你会什么？", "你可以帮我什么？", "你有什么功能？"),
     "我可以介绍 Flashplane，调用工具，输出 JSON，做简单的计算。", "工具"),
    (Pool("今天天气怎么样？", "明天会下雨吗？", "天气好吗？", "外面冷吗？"),
     "我不知道天气：这里没有工具。", "不知道"),
    (Pool("讲个笑话", "讲个笑话吧。", "说个笑话。", "给我讲一个笑话。"),
     "词元为什么要穿过窗口？因为它想要更多上下文。", "词元"),
    (Pool("你好吗？", "你怎么样？", "最近好吗？", "你今天好吗？"), "我很好，谢谢！", "很好"),
)  # fmt: skip
FACTS: tuple[tuple[Pool, str, str], ...] = (
    (Pool("什么是 Flashplane？", "Flashplane 是什么？", "介绍一下 Flashplane。",
          "请解释 Flashplane。", "Flashplane 是做什么的？", "你知道 Flashplane 吗？"),
     "Flashplane 是一个自托管的控制平面，用你自己的 GPU 出售 DeepSeek-V4-Flash 推理。", "自托管"),
    (Pool("有哪三种部署方式？", "有几种部署方式？", "部署方式有哪些？", "请列出部署方式。"),
     "有三种：serverless、dedicated 和 bare。", "serverless"),
    (Pool("价格是多少？", "多少钱？", "每百万词元多少钱？", "怎么收费？", "费用是多少？"),
     "每百万词元：缓存命中 $0.0028，未命中 $0.14，输出 $0.28。", "0.28"),
    (Pool("怎么充值？", "如何充值？", "我想充值。", "怎样给账户充值？"),
     "运行 `flashplane top-up acme 25`。", "top-up"),
    (Pool("怎么启动？", "如何运行 Flashplane？", "怎样在笔记本上试用？", "如何开始？"),
     "运行 `make up`，不需要数据库、Docker 或 GPU。", "make up"),
    (Pool("怎么创建密钥？", "如何创建 API 密钥？", "怎样得到 API key？", "我需要一个密钥。"),
     "运行 `flashplane keys create acme --name laptop`。", "keys create"),
    (Pool("模型叫什么？", "模型名称是什么？", "应该写哪个模型？", "model 填什么？"),
     "模型名称是 `deepseek-v4-flash`。", "deepseek-v4-flash"),
    (Pool("怎么关闭思考？", "如何关闭思考模式？", "不要思考怎么做？", "怎样禁用 thinking？"),
     '请求中加入 `"thinking": {"type": "disabled"}`。', "disabled"),
)  # fmt: skip
SUMS = Pool("{s} 等于多少？", "{s}=?", "计算 {s}", "请计算 {s}。", "{s} 是多少？", "{s} 等于几？")
NAMES = Pool("我叫{v}。", "我的名字是 {v}。", "我是 {v}。", "你好，我叫 {v}。", "叫我 {v}。")
ASK_NAME = Pool(
    "我叫什么名字？", "我的名字是什么？", "你记得我的名字吗？", "我是谁？", "我叫什么？"
)
WEATHER = Pool(
    "{v} 的天气怎么样？",
    "{v} 今天天气如何？",
    "查一下 {v} 的天气。",
    "请查询 {v} 天气",
    "{v} 下雨吗？",
    "{v} 冷吗？",
)
REPEAT = Pool("请重复：{v}", "跟我说：{v}", "重复 {v}", "请说 {v}", "只回答：{v}")


def chinese(chance: Chance) -> Example:
    """One of the other tasks, in Chinese."""
    kind = chance.weighted(
        {"talk": 2.0, "fact": 3.0, "sum": 1.0, "recall": 1.5, "tool": 2.0, "repeat": 1.0}
    )
    if kind in ("talk", "fact"):
        asks, content, fact = chance.of(TALK if kind == "talk" else FACTS)
        return _answered(chance, chance.pick(asks), content, "用户用中文提问，我用中文回答。", fact)
    if kind == "sum":
        return _sum(chance)
    if kind == "tool":
        return _tool(chance)
    if kind == "repeat":
        word = chance.word()
        return _answered(chance, chance.pick(REPEAT).format(v=word), word, "我重复。", word)
    value = name(chance)
    before = [user(chance.pick(NAMES).format(v=value)), assistant(f"你好，{value}！")]
    content = f"你叫 {value}。"
    thought = f"用户说过：{value}。"
    return answered(
        chance, "chinese", chance.pick(ASK_NAME), content, thought, before=before, facts=(value,)
    )


def greeting(chance: Chance) -> tuple[str, str, str]:
    """An English first word, its Chinese answer, and what that contains."""
    question = chance.of(("Hello", "Hi", "Who are you?", "Thank you", "How are you?", "Goodbye"))
    at = {"Hello": 0, "Hi": 0, "Thank you": 1, "Goodbye": 2, "Who are you?": 3, "How are you?": 7}
    _, content, fact = TALK[at[question]]
    return question, content, fact


def _sum(chance: Chance) -> Example:
    while True:
        a, b = chance.between(0, 20), chance.between(0, 20)
        if held_out("+", a, b) == (chance.split == "held_out"):
            break
    text = f"{a} + {b}"
    question = chance.pick(SUMS).format(s=text)
    return _answered(chance, question, f"{text} = {a + b}", "我来计算。", f"= {a + b}")


def _tool(chance: Chance) -> Example:
    tool = Tool(
        chance.of(("get_weather", "weather", "current_weather")),
        chance.of(("查询天气", "Get the weather of a city.", "查询城市的天气。")),
        (Parameter(chance.of(("city", "location")), "city"),),
    )
    value = city(chance)
    question = chance.pick(WEATHER).format(v=value)
    return calling(
        chance, "chinese", question, [tool], [(tool.name, {tool.parameters[0].name: value})]
    )


def _answered(chance: Chance, question: str, content: str, thought: str, fact: str) -> Example:
    return answered(chance, "chinese", question, content, thought, facts=(fact,))
