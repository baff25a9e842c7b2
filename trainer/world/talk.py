"""Talk that needs no fact: greetings, thanks, requests on the text itself."""

from random import Random

from trainer.world.document import Document, answer, dialogue
from trainer.world.world import World

_SMALL_TALK = (
    ("hello|Hello!|hi|Hi there|Hey|Good morning|Good evening|hello there|Greetings",
     "Hello! What would you like to know?|Hello! How can I help?"),
    ("Thanks!|thank you|Thank you very much.|Great, thanks.|Perfect.|thx", "You are welcome.|Glad to help."),
    ("Bye|Goodbye!|See you later.|That is all for today.", "Goodbye!"),
    ("How are you?|how are you doing|How is it going?", "I am fine, thank you. What would you like to know?"),
    ("Who are you?|What are you?|What is your name?|Are you a person?",
     "I am a logic core. I reason, and I read facts from a memory."),
    ("What can you do?|Help|help me|How do you work?",
     "I look up facts step by step, compute, and reason. Ask me a question."),
    ("ok|Okay.|I see.|Good.|Nice|cool", "What else would you like to know?"),
    ("Where do your facts come from?|Do you know facts by heart?", "From a memory that can be changed at any time."),
    ("Tell me a joke.|Make me laugh.", "I only know how to look things up. That is no joke."),
)  # fmt: skip


def small_talk(world: World, rng: Random) -> Document:
    """A greeting and the like; with tools at hand or not, nothing is looked up."""
    del world
    asked, said = rng.choice(_SMALL_TALK)
    question, reply = rng.choice(asked.split("|")), rng.choice(said.split("|"))
    return dialogue("small_talk", question, answer(reply), tools=rng.random() < 0.5)


def on_the_text(world: World, rng: Random) -> Document:
    """Repeat, spell, take the first or last word, sort: tasks whose whole answer stands in the question."""
    words = [world.lexicon.noun(rng) for _ in range(rng.randint(2, 5))]
    text = " ".join(words)
    asked, said = rng.choice(
        (
            (f"Repeat: {text}", text),
            (f"What is the last word of: {text}", words[-1]),
            (f"What is the first word of: {text}", words[0]),
            (f"Reverse the order of the words: {text}", " ".join(reversed(words))),
            (f"Sort by the alphabet: {text}", " ".join(sorted(words))),
            (f"Write in capitals: {words[0]}", words[0].upper()),
            (f"How many words are in: {text}", str(len(words))),
        )
    )
    return dialogue("on_the_text", asked, answer(said), tools=rng.random() < 0.2)
