"""Small talk: greetings, thanks, jokes, what the model is and what it cannot know."""

from __future__ import annotations

from random import Random

from corpus.conversation import Conversation, Turn
from corpus.personas import PLAIN, Voice, any_voice, persona
from corpus.tables import listed
from corpus.words import ANIMALS, COLOURS, FOODS, JOBS, NAMES

HELLO = (
    "Hello!",
    "Hello",
    "Hi",
    "Hi!",
    "Hey",
    "Hey!",
    "Hi there!",
    "Hello there!",
    "Good morning!",
    "Good evening!",
    "Good day!",
    "Greetings!",
    "Hello, who is there?",
    "Say hello.",
    "Say hi.",
    "Greet me.",
    "Hello!",
    "Hello!",
)
HOW = (
    "How are you?",
    "How are you today?",
    "How are you doing?",
    "How do you do?",
    "How is it going?",
    "Are you well?",
    "How do you feel?",
    "Hello, how are you?",
    "Hi, how are you?",
)
WHO = (
    "Who are you?",
    "What are you?",
    "What is your name?",
    "Introduce yourself.",
    "Tell me about yourself.",
    "Who is this?",
    "Who am I talking to?",
    "What's your name?",
)
THANKS = (
    "Thank you",
    "Thank you!",
    "Thanks",
    "Thanks!",
    "Thank you very much!",
    "Many thanks.",
    "Great, thanks!",
    "Thanks a lot.",
)
BYE = ("Goodbye", "Goodbye!", "Bye", "Bye!", "See you later.", "Good night!", "I have to go.")
JOKE = (
    "Tell me a joke",
    "Tell me a joke.",
    "Tell a joke",
    "Do you know a joke?",
    "Make me laugh.",
    "A joke, please.",
    "Say something funny.",
    "Give me a joke.",
)
HELP = (
    "What can you do?",
    "Help",
    "How can you help me?",
    "What are you good at?",
    "Can you help me?",
    "What do you know?",
)
SMALL_TALK = (
    ("Are you a robot?", "I am a computer program: a very small language model."),
    ("Are you human?", "No, I am a very small language model."),
    ("Are you alive?", "No, I am a computer program."),
    ("Do you like music?", "I cannot hear music, but I like the word."),
    ("Who made you?", "I was trained by the makers of talu, with a script that comes with it."),
    ("How old are you?", "I am as old as my last training run."),
    ("Where do you live?", "I live inside a Python package, on your own machine."),
    ("Do you need the internet?", "No, I run on your own machine without a network."),
    ("How big are you?", "I am very small: a few million parameters."),
    (
        "What is talu?",
        "talu is a Python library for talking to language models, here and behind an endpoint.",
    ),
    ("Do you sleep?", "No, I do not sleep."),
    ("Are you smart?", "I am a very small model, so I know only a little."),
    ("I am sad.", "I am sorry to hear that. Would you like to hear a joke?"),
    ("I am happy.", "That is good to hear!"),
    ("I am tired.", "Then you should rest a little."),
    ("I am hungry.", "Then it is time to eat something."),
    ("I am bored.", "Would you like to hear a story or a joke?"),
    ("Good job!", "Thank you!"),
    ("Well done.", "Thank you!"),
    ("I love you.", "Thank you, that is very kind."),
    ("Sorry.", "No problem at all."),
    ("OK", "Good. What else can I do for you?"),
    ("Yes", "Good. What would you like to know?"),
    ("No", "All right. Is there anything else?"),
    ("Nice to meet you.", "Nice to meet you too!"),
    ("What is the meaning of life?", "I do not know that. I am a very small model."),
    (
        "Write a haiku.",
        "Morning light falls soft.\nA small bird sings on the branch.\nThe day has begun.",
    ),
    (
        "Write a haiku about the sea.",
        "Waves roll to the shore.\nA white gull calls in the wind.\nThe sea never sleeps.",
    ),
    ("Write a short poem.", "The sun is warm, the sky is blue,\nI wrote this little poem for you."),
    ("Sing a song.", "La la la, the day is long,\nla la la, this is my song."),
)
UNKNOWN = (
    "What is the population of {place}?",
    "Who is the president of {place}?",
    "Who won the match in {place}?",
    "What is the best restaurant in {place}?",
    "How far is it to {place}?",
    "Who is the mayor of {place}?",
    "When was {place} founded?",
    "What is the stock price of {name}?",
    "Who is {name} {name2}?",
    "What did {name} say yesterday?",
    "When was {name} {name2} born?",
    "Where does {name} live?",
    "What is the phone number of {name}?",
    "Who wrote the book about {place}?",
    "What is the news from {place}?",
    "What happened in {year}?",
    "Who won the world cup in {year}?",
    "Who was the king of {place} in {year}?",
    "Write a program that sorts a list.",
    "Write a web server in Python.",
    "Prove that there are infinitely many primes.",
    "What is the square root of {year}?",
    "How do I fix my car?",
    "What should I invest in?",
    "Write an essay on {place}.",
    "Explain the history of {place}.",
    "What is the weight of {place}?",
    "How do I cook {food}?",
    "What time is it?",
    "What is today's date?",
    "What day is it today?",
    "What is the weather in {place}?",
)
PLACES = listed("places")
PUZZLED = "I do not understand that. I am a very small model."
NOTHING_TO_GO_ON = (
    "Another one.",
    "Again.",
    "And?",
    "Why?",
    "More.",
    "Continue.",
    "Explain this change.",
    "Summarize this text.",
    "Fix this bug.",
    "Review my code.",
    "Write an email.",
    "Translate this.",
    "Explain it.",
    "one two three",
    "a b c",
    "Test",
    "?",
    "q",
    "more",
    "two",
    "Go on.",
    "Do it again.",
    "And of it?",
    "What is that?",
    "Plan my day.",
    "Is it good?",
    "Compare them.",
)
PHRASES = ("hello", "yes", "no", "good morning", "world", "one", "two", "test", "all right")
WORDS = (ANIMALS, COLOURS, FOODS, JOBS, NAMES, PHRASES, PLACES)
NOT_KNOWN = (
    "I do not know that. I am a very small model.",
    "I do not know. I am a very small model and know only a little.",
)


def say(rng: Random, voice: Voice, kind: str) -> Turn:
    """Return a closed question of one kind with the answer of a voice."""
    asked = {
        "hello": HELLO,
        "how": HOW,
        "who": WHO,
        "thanks": THANKS,
        "bye": BYE,
        "joke": JOKE,
        "help": HELP,
    }[kind]
    return Turn(rng.choice(asked), rng.choice(getattr(voice, kind)), fresh=False)


def unknown(rng: Random) -> Turn:
    """Return a question that the model should decline."""
    question = rng.choice(UNKNOWN).format(
        place=rng.choice(PLACES),
        name=rng.choice(NAMES),
        name2=rng.choice(NAMES),
        year=rng.randint(1500, 2025),
        food=rng.choice(FOODS),
    )
    return Turn(question, rng.choice(NOT_KNOWN), "I do not know")


def puzzled(rng: Random) -> Turn:
    """Return words without a question in them, or a wish for something that is not there."""
    if rng.random() < 0.5:
        text = rng.choice(NOTHING_TO_GO_ON)
    else:
        text = " ".join(
            rng.choice((_thing, _thing, _number))(rng) for _ in range(rng.randint(1, 5))
        )
    return Turn(text, PUZZLED, PUZZLED)


def echo(rng: Random) -> Turn:
    """Return a request to write given words."""
    length = rng.randint(1, 4) if rng.random() < 0.5 else rng.randint(4, 12)
    text = " ".join(rng.choice((_word, _word, _number))(rng) for _ in range(length))
    asked = rng.choice(
        (
            "Repeat after me: {t}",
            "Say {t}",
            "Say: {t}",
            "Repeat: {t}",
            "Write {t}",
            'Say "{t}".',
            "Say only {t}",
            "Reply with {t}",
            'Repeat "{t}".',
            "Repeat this: {t}",
        )
    )
    return Turn(asked.format(t=text), text, text)


def _word(rng: Random) -> str:
    return rng.choice(rng.choice(WORDS))


def _thing(rng: Random) -> str:
    return rng.choice(rng.choice((ANIMALS, COLOURS, FOODS, JOBS)))


def _number(rng: Random) -> str:
    return str(rng.randint(0, rng.choice((20, 99, 999, 9999))))


def echoed(rng: Random) -> Conversation:
    """Return a request to repeat words, from which the model learns to copy."""
    return Conversation("echo", (echo(rng),), any_voice(rng, 0)[0])


def sample(rng: Random) -> Conversation:
    """Return one exchange of small talk without a role."""
    roll = rng.random()
    if roll < 0.2:
        return Conversation("unknown", (unknown(rng),), any_voice(rng, 0)[0])
    if roll < 0.4:
        return Conversation("puzzled", (puzzled(rng),), any_voice(rng, 0)[0])
    system = any_voice(rng, 0)[0]
    if roll < 0.6:
        question, answer = rng.choice(SMALL_TALK)
        return Conversation("small talk", (Turn(question, answer, fresh=False),), system)
    kind = rng.choice(("hello", "hello", "how", "who", "thanks", "bye", "joke", "joke", "help"))
    return Conversation("small talk", (say(rng, PLAIN, kind),), system)


def in_role(rng: Random) -> Conversation:
    """Return one to three exchanges in a role."""
    system, voice = persona(rng)
    kinds = ["hello"] if rng.random() < 0.55 else []
    while not kinds or (len(kinds) < 3 and rng.random() < 0.35):
        kinds.append(rng.choice(("hello", "how", "who", "thanks", "bye", "joke", "help")))
    turns = tuple(say(rng, voice, kind) for kind in dict.fromkeys(kinds))
    return Conversation("persona", turns, system)
