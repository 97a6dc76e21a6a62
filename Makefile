# make notebooks   MNIST, then the three notebooks, executed in place (-j2: two at a time)
# make study       what is missing of the study's 90 runs, and the report on them
# make report      the report on the study's runs, as they are
# make test        the tests
# make quick       the three notebooks, three epochs on 4,096 images, under build/quick
# make lab         JupyterLab
# make torture     hundreds of faults inflicted on checkpoints, data and training
# make bench       an epoch against the usual loop's, side by side
# make clean       remove build/, all checkpoints and what killed writers left
#
# Each sets up what it needs, in .venv or in VENV=PATH.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DASK_READY := $(VENV)/.ready-dask
NOTEBOOKS := MNIST_Classifier_v1 MNIST_Classifier_v2 MNIST_Classifier_Final
PAPERMILL := $(BIN)/papermill --cwd . --kernel python3 --no-progress-bar --stdout-file - --log-level ERROR
STRIP := "metadata.papermill metadata.language_info cell.metadata.papermill"

.PHONY: notebooks $(NOTEBOOKS) data study report test quick lab torture bench clean
.DELETE_ON_ERROR:

notebooks: $(NOTEBOOKS)

$(NOTEBOOKS): data
	@mkdir -p build/notebooks
	@echo "== $@.ipynb"
	@$(PAPERMILL) $@.ipynb build/notebooks/$@.ipynb
	@$(BIN)/jupyter nbconvert --log-level ERROR --to notebook --coalesce-streams --inplace \
	    build/notebooks/$@.ipynb
	@$(BIN)/nbstripout --keep-output --keep-count --keep-id --extra-keys $(STRIP) \
	    build/notebooks/$@.ipynb
	@mv build/notebooks/$@.ipynb $@.ipynb

data: $(READY)
	@$(BIN)/python -c "from DataPipeline import load_mnist; load_mnist()"

study: $(READY)
	@$(BIN)/python -m study run
	@$(BIN)/python -m study report

report: $(READY)
	@$(BIN)/python -m study report

test: $(DASK_READY)
	@$(BIN)/python -m pytest -m "not torture"

torture: $(READY)
	@$(BIN)/python -m pytest -m torture

quick: $(READY)
	@rm -rf build/quick && mkdir -p build/quick
	@for name in $(NOTEBOOKS); do \
	    echo "== build/quick/$$name.ipynb"; \
	    $(PAPERMILL) -p EPOCHS 3 -p TRAIN_IMAGES 4096 -p OUT_DIR build/quick \
	        $$name.ipynb build/quick/$$name.ipynb || exit 1; \
	done

lab: $(READY)
	@$(BIN)/jupyter lab $(LAB_ARGS) MNIST_Classifier_v1.ipynb

bench: $(READY)
	@$(BIN)/python benchmarks/epoch_time.py --json benchmarks/epoch_time.json

clean:
	rm -rf build checkpoints results/runs/*.pt
	rm -f results/.*.tmp results/*/.*.tmp data/MNIST/raw/.*.tmp results/runs/*.lock

$(READY): requirements.txt
	@$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))" || { \
	    echo "This needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is none of them: name one, as in" \
	        "make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	@touch $@

$(DASK_READY): $(READY) requirements-dask.txt
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dask.txt
	@touch $@
