"""The dialogue format that Adept's chat model was tuned on: `human: {question}\\n\\nadept: {answer}\\n\\nhuman: …`."""

from collections.abc import Mapping, Sequence

SPEAKERS = {"human": "human", "user": "human", "adept": "adept", "assistant": "adept"}
NEXT_TURN = "\n\nhuman:"  # where an answer ends: the model goes on with the human's part if nothing stops it there

# The same format as the Jinja template that transformers renders.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% set turn = loop.index0 % 2 %}"
    "{% if message['role'] not in (['human', 'user'], ['adept', 'assistant'])[turn] %}"
    "{{ raise_exception('turns must go human, adept, human, ...; got ' + message['role']) }}"
    "{% endif %}"
    "{% if turn == 0 %}{{ 'human: ' }}{% else %}{{ 'adept: ' }}{% endif %}{{ message['content'] }}"
    "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nadept:' }}{% endif %}"
)


def render_chat(messages: str | Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
    """One prompt, or a list of `{"role": …, "content": …}`, as the text that the chat model reads.

    Roles alternate, `human` (or `user`) first, then `adept` (or `assistant`); contents are taken as they are.
    `add_generation_prompt` ends the text with `\\n\\nadept:`, where the answer begins. The space after the colon is the
    model's to write, as part of its first word, so the prompt must not end with one.

    ValueError for an unknown role, roles out of turn, or a generation prompt after adept's own words.
    Source: the prompts of github.com/persimmon-ai-labs/adept-inference.
    """
    if isinstance(messages, str):
        messages = [{"role": "human", "content": messages}]
    if not messages:
        raise ValueError("a chat needs at least one message, and the list is empty")
    turns = []
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
            raise ValueError(f"message {index} is {message!r}; expected {{'role': 'human', 'content': 'some text'}}")
        role = message.get("role")
        if role not in SPEAKERS:
            raise ValueError(f"message {index} has role {role!r}; Persimmon's chat format knows only {list(SPEAKERS)}")
        expected = ("human", "adept")[index % 2]
        if SPEAKERS[role] != expected:
            raise ValueError(f"message {index} is from {role!r}, but it is {expected}'s turn: human starts, then adept")
        turns.append(f"{expected}: {message['content']}")
    if add_generation_prompt:
        if len(turns) % 2 == 0:
            raise ValueError(
                "the last message is adept's own, so there is nothing to answer; "
                "pass add_generation_prompt=False, or add a human message"
            )
        turns.append("adept:")
    return "\n\n".join(turns)
