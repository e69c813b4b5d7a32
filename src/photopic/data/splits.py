"""The fixed splits of the emoji world, as names. They never change: claims of earlier versions depend on them.

``KNOWN`` concepts are what ``emoji-diffusion`` learns to draw. ``SUBJECTS`` are held out of every bundled model and serve as the
novel subjects of customisation; each comes with the class noun a user would give it. Of all other concepts a fixed share, chosen
by the hash of the name, is held out too; the rest may be used to train.
"""

from __future__ import annotations

HELD_OUT_PERCENT = 10  # of the concepts that are neither known nor subjects

SUBJECTS: dict[str, str] = {  # held-out concept: class noun, itself a known concept
    "panda": "bear",
    "polar bear": "bear",
    "tiger": "cat",
    "raccoon": "fox",
    "zebra": "horse",
    "pig": "boar",
    "flamingo": "bird",
    "parrot": "bird",
    "tropical fish": "fish",
    "hippopotamus": "elephant",
    "lady beetle": "beetle",
    "T-Rex": "crocodile",
    "spouting whale": "whale",
    "strawberry": "tomato",
    "watermelon": "melon",
    "pineapple": "coconut",
    "hamburger": "sandwich",
    "doughnut": "cookie",
    "sunflower": "rose",
    "palm tree": "cactus",
    "fire engine": "bus",
    "taxi": "automobile",
    "rocket": "airplane",
    "sailboat": "ship",
    "violin": "guitar",
    "basketball": "baseball",
}

KNOWN: frozenset[str] = frozenset(
    name.strip()
    for name in (
        # animals
        "monkey, gorilla, dog, wolf, fox, cat, lion, leopard, horse, unicorn, deer, bison, cow, boar, ram, goat, camel, llama, "
        "giraffe, elephant, rhinoceros, mouse, hamster, rabbit, chipmunk, hedgehog, bat, bear, koala, sloth, kangaroo, badger, "
        "turkey, chicken, bird, penguin, eagle, duck, swan, owl, peacock, frog, crocodile, turtle, lizard, snake, dragon, whale, "
        "dolphin, fish, blowfish, shark, octopus, crab, lobster, shrimp, squid, snail, butterfly, bug, ant, honeybee, beetle, "
        "spider, scorpion, mosquito, "
        # plants
        "tulip, rose, cactus, mushroom, evergreen tree, deciduous tree, shamrock, maple leaf, seedling, bouquet, blossom, "
        # food
        "grapes, melon, tangerine, lemon, banana, mango, red apple, pear, peach, cherries, tomato, coconut, avocado, eggplant, "
        "carrot, hot pepper, cucumber, broccoli, garlic, onion, potato, peanuts, chestnut, bread, croissant, pretzel, pancakes, "
        "waffle, cheese wedge, poultry leg, bacon, pizza, hot dog, sandwich, taco, egg, popcorn, sushi, ice cream, cookie, "
        "birthday cake, pie, lollipop, candy, honey pot, teapot, hot beverage, cocktail glass, bubble tea, "
        # places and transport
        "volcano, house, castle, church, tent, locomotive, bus, automobile, tractor, motorcycle, bicycle, skateboard, airplane, "
        "helicopter, ship, canoe, anchor, satellite, flying saucer, fuel pump, delivery truck, stop sign, "
        # things
        "watch, umbrella, snowman, fire, rainbow, cloud, sun, balloon, wrapped gift, trophy, soccer ball, baseball, bowling, kite, "
        "game die, teddy bear, yarn, glasses, necktie, t-shirt, jeans, dress, backpack, crown, top hat, ring, bell, headphone, "
        "radio, saxophone, trumpet, guitar, drum, accordion, telephone, laptop, printer, television, camera, candle, light bulb, "
        "closed book, scroll, envelope, pencil, paintbrush, briefcase, scissors, locked, key, hammer, axe, bomb, shield, wrench, "
        "magnet, ladder, microscope, telescope, door, chair, toilet, broom, bucket, ghost, alien, robot, skull"
    ).split(",")
)
