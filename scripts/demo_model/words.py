"""The small world that the demo model knows: facts and word lists, all written for it."""


def table(text):
    """The variants in a text: divided by bars and line ends."""
    return [p for line in text.strip().split("\n") for p in line.split("|")]


# country, capital, continent
COUNTRIES = [tuple(line.split("/")) for line in """
France/Paris/Europe Spain/Madrid/Europe Portugal/Lisbon/Europe Italy/Rome/Europe Germany/Berlin/Europe
Austria/Vienna/Europe Switzerland/Bern/Europe Belgium/Brussels/Europe Ireland/Dublin/Europe
Norway/Oslo/Europe Sweden/Stockholm/Europe Finland/Helsinki/Europe Denmark/Copenhagen/Europe
Iceland/Reykjavik/Europe Poland/Warsaw/Europe Hungary/Budapest/Europe Greece/Athens/Europe
Romania/Bucharest/Europe Bulgaria/Sofia/Europe Croatia/Zagreb/Europe Serbia/Belgrade/Europe
Slovakia/Bratislava/Europe Slovenia/Ljubljana/Europe Ukraine/Kyiv/Europe Russia/Moscow/Europe
Estonia/Tallinn/Europe Latvia/Riga/Europe Lithuania/Vilnius/Europe Albania/Tirana/Europe
Malta/Valletta/Europe England/London/Europe Scotland/Edinburgh/Europe Wales/Cardiff/Europe
Turkey/Ankara/Asia China/Beijing/Asia Japan/Tokyo/Asia India/Delhi/Asia Thailand/Bangkok/Asia
Vietnam/Hanoi/Asia Indonesia/Jakarta/Asia Mongolia/Ulaanbaatar/Asia Nepal/Kathmandu/Asia
Pakistan/Islamabad/Asia Iran/Tehran/Asia Iraq/Baghdad/Asia Syria/Damascus/Asia Jordan/Amman/Asia
Lebanon/Beirut/Asia Qatar/Doha/Asia Bangladesh/Dhaka/Asia Afghanistan/Kabul/Asia Cambodia/Phnom_Penh/Asia
Laos/Vientiane/Asia Malaysia/Kuala_Lumpur/Asia South_Korea/Seoul/Asia Saudi_Arabia/Riyadh/Asia
Georgia/Tbilisi/Asia Armenia/Yerevan/Asia Oman/Muscat/Asia
Egypt/Cairo/Africa Morocco/Rabat/Africa Algeria/Algiers/Africa Tunisia/Tunis/Africa Libya/Tripoli/Africa
Kenya/Nairobi/Africa Ethiopia/Addis_Ababa/Africa Ghana/Accra/Africa Nigeria/Abuja/Africa
Senegal/Dakar/Africa Uganda/Kampala/Africa Sudan/Khartoum/Africa Mali/Bamako/Africa Angola/Luanda/Africa
Zambia/Lusaka/Africa Zimbabwe/Harare/Africa Namibia/Windhoek/Africa Rwanda/Kigali/Africa
Somalia/Mogadishu/Africa
Canada/Ottawa/North_America Mexico/Mexico_City/North_America Cuba/Havana/North_America
Jamaica/Kingston/North_America Panama/Panama_City/North_America Costa_Rica/San_Jose/North_America
Haiti/Port-au-Prince/North_America Nicaragua/Managua/North_America
Brazil/Brasilia/South_America Argentina/Buenos_Aires/South_America Chile/Santiago/South_America
Peru/Lima/South_America Colombia/Bogota/South_America Venezuela/Caracas/South_America
Ecuador/Quito/South_America Uruguay/Montevideo/South_America Paraguay/Asuncion/South_America
Australia/Canberra/Oceania New_Zealand/Wellington/Oceania Fiji/Suva/Oceania
""".replace("_", "\0").split()]
COUNTRIES = [tuple(part.replace("\0", " ") for part in c) for c in COUNTRIES]
CONTINENTS = ["Africa", "Asia", "Europe", "North America", "South America", "Oceania", "Antarctica"]

NAMES = """Anna Ben Clara David Ella Felix Greta Henry Ida Jonas Karla Leo Maria Nina Oscar Paula Rosa Simon
Tina Victor Wanda Yusuf Zoe Adam Bella Carlos Diana Emil Fiona George Hanna Ivan Julia Kevin Laura Martin
Nora Olga Peter Rita Sara Thomas Ursula Vera Walter Xenia Amina Boris Cecilia Dora Erik Frida Gustav Helena
Igor Jana Kofi Linda Marco Naomi Otto Petra Ravi Stella Tobias Uma Vincent Wilma Yara Zara Alice Bruno Chloe
Dmitri Elena Farid Gloria Hugo Irene Jakob Kira Lukas Mina Nils Olivia Pablo Quentin Rachel Samuel Tara Umar
Viola William Yvonne Aaron Beata Cyril Daphne Edgar Flora Gavin Hilda Isaac Judith Klaus Leila Milan Nadia
Omar Pia Ronja Stefan Teresa Ulrich Valentin Wendy Yannick Zelda Abel Britta Conrad Doris Esther Fabian Gina
Harald Ines Joel Katrin Lars Mona Noah Odette Philip Ramona Sven Thea Veronika Wolf Arthur Birgit Caspar Delia
Enzo Fatima Gerda Heidi Imran Jasper Kurt Lydia Mehmet Nelly""".split()
TOWNS = (
    """Lyon Porto Seville Milan Hamburg Graz Basel Ghent Cork Bergen Malmo Tampere Aarhus Krakow Szeged Patras
Cluj Varna Split Odessa Kazan Tartu Kaunas Leeds York Bristol Glasgow Izmir Shanghai Osaka Kyoto Mumbai Pune
Busan Lahore Basra Aleppo Mandalay Luxor Fez Oran Mombasa Kumasi Lagos Durban Toronto Montreal Dallas Boston
Denver Chicago Seattle Houston Cancun Salvador Cordoba Cusco Medellin Sydney Perth Hobart Auckland Dresden
Bremen Naples Turin Valencia Bilbao Nantes Lille Utrecht Geneva Salzburg Antwerp Galway Uppsala Turku Odense
Gdansk Brno Pecs Rijeka Lviv Narva Oxford Derby Dundee Swansea Adana Xian Nagoya Chennai Hue Medan Shiraz
Mosul Tangier Arusha Kano Quebec Austin Tampa Merida Recife Rosario Arequipa Cali Darwin Nelson Mainz Bonn
Parma Verona Malaga Toledo Rouen Leiden Linz Bruges""".split()
)
ITEMS = (
    """apples pears plums lemons candles lamps chairs tables pens pencils books maps clocks mugs plates spoons
forks bowls towels pillows blankets shirts hats scarves gloves boots shoes socks coats belts bags baskets boxes
bottles jars keys ropes nails hammers ladders brushes buckets tiles bricks planks tents kites balls drums flutes
violins guitars stamps envelopes cards rings necklaces watches mirrors curtains carpets lanterns batteries cables
screws wheels bells vases roses tulips melons carrots onions potatoes cabbages cakes cookies muffins waffles
pancakes tickets posters puzzles marbles robots dolls helmets paddles anchors shovels rakes seeds peppers cherries
peaches turnips radishes walnuts almonds trumpets whistles buttons zippers ribbons notebooks erasers crayons
magnets mattresses cushions kettles ovens toasters blenders napkins candlesticks thimbles needles""".split()
)
JOBS = """teacher doctor baker farmer painter nurse pilot sailor lawyer writer singer driver cook carpenter gardener
tailor plumber waiter dentist librarian engineer actor butcher miner barber""".split()
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
EVENTS = """concert meeting party lesson wedding exam workshop picnic dinner lecture match parade market
rehearsal interview""".split()
COLOURS = "red blue green yellow black white brown grey orange purple pink".split()
THING_COLOURS = [
    tuple(x.split("/"))
    for x in """the_sky/blue grass/green snow/white blood/red coal/black milk/white
a_banana/yellow a_lemon/yellow a_carrot/orange chocolate/brown a_tomato/red the_sun/yellow the_sea/blue a_leaf/green
a_strawberry/red a_crow/black a_swan/white a_flamingo/pink an_elephant/grey a_frog/green a_cucumber/green paper/white
a_cherry/red the_night/black a_pumpkin/orange a_plum/purple a_bear/brown a_mouse/grey ash/grey a_pea/green
a_raven/black salt/white lettuce/green a_fire_engine/red wood/brown an_eggplant/purple""".replace(
        "_", "\0"
    ).split()
]
THING_COLOURS = [(a.replace("\0", " "), b) for a, b in THING_COLOURS]
MIXES = [
    ("red", "blue", "purple"),
    ("red", "yellow", "orange"),
    ("blue", "yellow", "green"),
    ("black", "white", "grey"),
    ("red", "white", "pink"),
]
OPPOSITES = [
    tuple(x.split("/")) for x in """hot/cold big/small tall/short old/young new/old fast/slow happy/sad
light/dark open/closed full/empty early/late loud/quiet hard/soft wet/dry clean/dirty rich/poor strong/weak long/short
high/low near/far up/down left/right day/night good/bad easy/difficult cheap/expensive thick/thin wide/narrow
deep/shallow heavy/light first/last begin/end buy/sell win/lose love/hate push/pull give/take laugh/cry true/false
always/never inside/outside above/below before/after sweet/sour brave/afraid smooth/rough sharp/blunt
friend/enemy summer/winter arrive/leave remember/forget asleep/awake alive/dead safe/dangerous beautiful/ugly
lazy/busy polite/rude north/south east/west question/answer""".split()
]
SPELL = """cat dog bird fish horse mouse house table chair river bridge garden window kitchen winter summer apple bread
butter cheese water fire stone cloud storm letter paper pencil school teacher mother father sister brother doctor
market music picture island forest mountain village city street train ship plane wheel clock candle mirror bottle
silver golden yellow purple orange friend happy quiet small large seven eleven twelve ocean planet flower""".split()
ANIMALS = """fox owl bear mouse cat dog hare goat duck crow frog hen horse sheep wolf swan hedgehog squirrel
donkey turtle""".split()
THINGS = (
    """lamp key letter drum kite boat map bell coin ladder clock hat basket lantern ring ball flute cake book
stone""".split()
)
PLACES = """forest village garden river market island mountain harbour castle field""".split()

GOOD = """great good wonderful excellent lovely perfect fantastic amazing delicious pleasant brilliant superb charming
beautiful fresh friendly helpful comfortable clean fun exciting delightful impressive splendid marvellous cosy
enjoyable outstanding nice fabulous""".split()
BAD = """terrible bad awful horrible poor boring disgusting dirty rude disappointing dreadful ugly broken useless slow
unpleasant noisy cold stale annoying painful miserable nasty weak ridiculous worthless dull unfriendly gross
shabby""".split()
REVIEWED = (
    """food room film book hotel service music show staff soup coffee concert trip game phone pizza dinner
lunch breakfast meal play story song beach museum garden restaurant party lesson train bus camera bed view waiter tour
cake bread tea salad painting website product chair shop market dress course flight""".split()
)
LOVED = [
    "loved",
    "enjoyed",
    "adored",
    "really liked",
    "am very happy with",
    "would recommend",
    "was pleased with",
    "was delighted by",
    "am glad I chose",
    "cannot wait to see again",
]
HATED = [
    "hated",
    "disliked",
    "regretted",
    "really disliked",
    "am very unhappy with",
    "would not recommend",
    "was annoyed by",
    "was disappointed by",
    "am sorry I chose",
    "never want to see again",
]

STARTS = """b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh sk st t tr v w y z""".split()
VOWELS = "a e i o u a e i o ai ea ou".split()
ENDS = "n l r t m k d nd rt lla na ra no lo mi to ne ri va da bo".split()
