"""Taught: a model that was never trained on the tags learns them from a system prompt with examples.

The text, and how a conversation takes it in. Where the tags are no tokens of the model's, the codec stops on strings.
"""

from collections.abc import Sequence

from service.codec import Message

TEACHING = """\
Before you answer, think in lines between <think> and </think>. You know no facts by heart. Whenever a line needs a \
fact, write <lookup>subject | relation</lookup> and stop: the value follows in <fact>…</fact>. To find whose value it \
is, write <lookup>? | relation | value</lookup>. Whenever a line needs arithmetic or a comparison, write \
<calc>expression</calc> and stop: the result follows in <result>…</result>. Never write <fact> or <result> yourself. \
After </think>, write the answer alone. If the fact is NOT FOUND, answer: I don't know

Question: What is the capital of the birthplace of Ana Ruiz?
<think>
I need the birthplace of Ana Ruiz. <lookup>Ana Ruiz | birthplace</lookup><fact>Peru</fact>
Next I need the capital of Peru. <lookup>Peru | capital</lookup><fact>Lima</fact>
</think>
Lima

Question: Tom has 17 apples and buys 5 bags of 8. How many has he?
<think>
Multiply. <calc>5 * 8</calc><result>40</result>
Add. <calc>17 + 40</calc><result>57</result>
</think>
57"""


def teach(messages: Sequence[Message], teaching: str) -> tuple[Message, ...]:
    """Put `teaching`, if any, before a conversation, ahead of its own system prompt."""
    if not teaching:
        return tuple(messages)
    return (Message("system", teaching, trusted=True), *messages)
