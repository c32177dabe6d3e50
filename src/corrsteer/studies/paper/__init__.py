"""The paper's study for any model: cells that are run once each, and tables made of their results.

Changes when a study is asked for in another way.
"""

from corrsteer.studies.paper.paper import run_study
from corrsteer.studies.paper.results import Study
from corrsteer.studies.paper.settings import PARTS, StudySettings
from corrsteer.studies.paper.tables import Table, tables

__all__ = ["PARTS", "Study", "StudySettings", "Table", "run_study", "tables"]
