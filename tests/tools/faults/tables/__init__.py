"""What is planted, by the part of the passes that it breaks."""

from tests.tools.faults.planted import Fault
from tests.tools.faults.tables import channels, labels, moves, products, statistics, surgery

TABLES = (labels, channels, products, moves, statistics, surgery)
FAULTS: dict[str, Fault] = {fault.sentence: fault for table in TABLES for fault in table.FAULTS}
