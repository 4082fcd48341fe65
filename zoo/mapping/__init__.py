"""From a checkpoint and the rasters of a scene to a map of landslide probabilities, blended over tiles without seams.

    from zoo.mapping import map_scene

    result = map_scene("best.ckpt", "image.tif", "dem.tif", out="prob.tif")

`predict_scene` gives the same numbers band by band without writing files.
"""

from zoo.mapping.ensemble import Ensemble
from zoo.mapping.maps import MapOptions, Mapper, Plan, SceneMap, map_scene
from zoo.mapping.prediction import Band, predict_scene, scene_reader

__all__ = ["Band", "Ensemble", "MapOptions", "Mapper", "Plan", "SceneMap", "map_scene", "predict_scene", "scene_reader"]
