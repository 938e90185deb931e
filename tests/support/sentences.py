"""A thousand plain sentences and fifty queries, always the same: for tests and benchmarks of embedding models."""
SUBJECTS = ["A farmer", "The new teacher", "My neighbour", "An old sailor", "The city council", "Her younger brother",
            "A tired nurse", "The research team", "Our train", "The small bakery"]
VERBS = ["repaired", "lost", "painted", "described", "sold", "borrowed", "photographed", "forgot", "measured", "returned"]
OBJECTS = ["a wooden boat", "the red bicycle", "three letters from Norway", "the map of the harbour", "a box of oranges",
           "the broken radio", "an expensive violin", "the water pump", "her collection of stamps", "the last ticket"]
TAILS = ["before the storm came.", "in a hurry", "and nobody noticed!", "at 7:45 on Monday", "for the museum (room 12)",
         "because it was too heavy", "while the children slept", "during the long winter of 1987", "near the river café",
         "without saying a word"]
SENTENCES = [f"{SUBJECTS[i % 10]} {VERBS[i // 10 % 10]} {OBJECTS[i // 100]} {TAILS[(i * 7 + i // 10) % 10]}"
             for i in range(1000)]
QUERIES = [f"Who {VERBS[i % 10]} {OBJECTS[i * 3 % 10]}{' ' + TAILS[i % 7] if i % 2 else ''}?" for i in range(50)]
