"""Texts of bags of concepts in the published form, as a language model writes them: long sentences, ends outside the list."""

# 7 objects and 7 relations, of whose 14 ends 4 are not listed; the planning form adds positions on a canvas of 512 x 512
HARBOUR = """%%Part1: Overall description%%
&&Part1.1: Style&&
A documentary photograph with soft <morning light> and long shadows.
&&Part1.2: Theme&&
The <fisherman> gets his boat ready before the harbour wakes.
&&Part1.3: Global description of background&&
Low <clouds> lie over a calm bay. Behind the pier stands a row of narrow houses, 2.5 storeys high on average, with signs that read \
"Fresh fish; cold ice. Open".
&&Part1.4: Global description of foreground&&
A man in a yellow coat bends over a net. Two boats (one of them freshly painted) rock beside him, and a gull waits for its share.

%%Part2: List of objects%%
<Fisherman 1> (Living; foreground; The fisherman's coat hangs open over a striped jumper, his hands pull a wet net over the rail.; \
Color information: The coat is yellow, the jumper is navy and white.)
<Boat 1> (Inanimate; foreground; The boat's hull shows fresh paint, its mast (bare, 6.5 m tall) leans to the left.; \
Color information: The hull is red with a white line.)
<Boat 2> (Inanimate; foreground/background; The boat's cabin is closed, ropes tie it to the pier.; Color information: Faded blue.)
<Net 1> (Inanimate; foreground; The net's meshes hold drops of water and some weed.; Color information: It is green.)
<Gull 1> (Living; foreground; The gull's wings are folded, its eyes follow the net.; Color information: White with grey wings.)
<Lighthouse 1> (Inanimate; background; The lighthouse's lamp is off; its gallery has a railing.; Color information: White and red.)
<Crate 1> (Inanimate; foreground; The crate's lid lies beside it, ice fills it to the rim.; Color information: Brown wood.)

%%Part3: Relationships%%
<Fisherman 1> [pulls at] <Net 1>.
<Fisherman 1> [turns his back to] <Camera>.
<Boats> [are moored to] <Pier>.
<Gull 1> [watches] <Net 1>.
<Crate 1> [stands in front of] <Boat 1>, <Lighthouse 1> [rises behind] <Houses>.
<Clouds> [hang over] <Lighthouse 1>.
"""
POSITIONS = """
%%Part4: Positions of the objects%%
<objects' positions>: "Fisherman 1 {width: 120px; height: 260px; x: 60px; y: 200px}, Boat 1 {width: 210px; height: 190px; \
x: 180px; y: 250px}, Boat 2 {width: 100px; height: 90px; x: 400px; y: 230px}, \
Net 1 {width: 130px; height: 80px; x: 70px; y: 380px}, \
Gull 1 {width: 30px; height: 40px; x: 330px; y: 210px}, Lighthouse 1 {width: 40px; height: 150px; x: 440px; y: 60px}"
"""
STARRED = """
%%Part4: Positions%%
* Fisherman 1 (width: 120px; height: 260px; x: 60px; y: 200px)
* Boat 1 (width: 210px; height: 190px; x: 180px; y: 250px)
"""
# 10 objects and 10 relations, all in one line as data sets keep it
MARKET = " ".join(
    [
        "%%Part1: Overall description%% &&Part1.1: Style&& A bright watercolour. &&Part1.2: Theme&& A market on a square.",
        "&&Part1.3: Global description of background&& Striped awnings fill the square. A clock tower shows ten past nine.",
        "&&Part1.4: Global description of foreground&& Two women talk at a stall. A child points at the oranges.",
        "%%Part2: List of objects%%",
        *(
            f"<{name}> ({life}; {place}; {text}; Color information: {colour})"
            for name, life, place, text, colour in (
                ("Woman 1", "Living", "foreground", "The woman's basket is full.", "A green dress."),
                ("Woman 2", "Living", "foreground", "The woman's apron has pockets.", "A white apron."),
                ("Child 1", "Living", "foreground", "The child's arm is stretched out.", "Red shoes."),
                ("Stall 1", "Inanimate", "foreground", "The stall's counter holds fruit.", "Pale wood."),
                ("Orange 1", "Inanimate", "foreground", "The orange's leaf is still on.", "Orange."),
                ("Basket 1", "Inanimate", "foreground", "The basket's handle is broken.", "Straw."),
                ("Awning 1", "Inanimate", "background", "The awning's edge is scalloped.", "Blue and white."),
                ("Tower 1", "Inanimate", "background", "The tower's clock has roman numerals.", "Sand."),
                ("Pigeon 1", "Living", "background", "The pigeon's head is tucked in.", "Grey."),
                ("Dog 1", "Living", "foreground/background", "The dog's tail is blurred.", "Brown."),
            )
        ),
        "%%Part3: Relationships%%",
        "<Woman 1> [talks to] <Woman 2>. <Woman 1> [carries] <Basket 1>. <Woman 2> [stands behind] <Stall 1>.",
        "<Child 1> [points at] <Orange 1>. <Orange 1> [lies on] <Stall 1>. <Awning 1> [shades] <Stall 1>.",
        "<Tower 1> [rises above] <Awning 1>. <Pigeon 1> [sits on] <Tower 1>. <Dog 1> [runs towards] <Child 1>.",
        "<Dog 1> [is left of] <Stall 1>.",
    ]
)
