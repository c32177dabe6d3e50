"""The paper's study for any model: cells that are run once each, and tables made of their results.

Changes when a study is asked for in another way.
"""

from corrsteer.study.paper import run_study
from corrsteer.study.results import Study
from corrsteer.study.settings import PARTS, StudySettings
from corrsteer.study.tables import Table, tables

__all__ = ["PARTS", "Study", "StudySettings", "Table", "run_study", "tables"]
