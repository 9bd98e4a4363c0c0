# Writes the counts and cell tables of R objects as text that `embbench` reads (jiang24_rds, mcfaline24_gxe1, _gxe2).
#
#   Rscript embbench/data/convert_rds.R OBJECT.rds [MORE.rds ...]          # .rds, .RDS, also packed a second time as .gz
#
# Beside OBJECT.rds it writes OBJECT.matrix.mtx.gz (genes x cells, Matrix Market, whole numbers), OBJECT.obs.csv.gz and
# OBJECT.var.csv.gz (first column: names). An object that is a list of such objects (the lines of McFaline-Figueroa et al.)
# gives one triple per element: OBJECT.ELEMENT.matrix.mtx.gz ... Read are Seurat objects of versions 3 to 5 (assay RNA, else
# the default one, layer or slot "counts") and objects of SingleCellExperiment's kin, such as monocle's cell_data_set
# (assay "counts"). Only the packages Matrix and methods are needed: slots are read as they are stored, so neither Seurat nor
# monocle must be installed. Nothing in the object is run. Memory: the object itself, which R must hold, and a block of cells.

suppressPackageStartupMessages({
  library(methods)
  library(Matrix)
})

BLOCK <- 2000L # cells that are written at once

fail <- function(...) stop(paste0(...), call. = FALSE)

field <- function(x, name) {
  # a slot, or an element of a list; NULL where there is none
  if (isS4(x) && name %in% names(attributes(x))) return(attr(x, name))
  inner <- if (isS4(x)) attr(x, ".xData") else NULL # reference classes of older objects
  if (is.environment(inner) && exists(name, envir = inner, inherits = FALSE)) return(get(name, envir = inner))
  if (is.list(x) && !is.null(names(x)) && name %in% names(x)) return(x[[name]])
  NULL
}

plain_frame <- function(x) {
  # columns of a data.frame, or of a DFrame of S4Vectors, that hold one value per row
  if (is.data.frame(x)) return(x)
  columns <- field(x, "listData")
  rows <- field(x, "rownames")
  if (is.null(columns)) return(NULL)
  columns <- columns[vapply(columns, function(v) is.atomic(v) || is.factor(v), logical(1))]
  out <- as.data.frame(columns, stringsAsFactors = FALSE, check.names = FALSE, optional = TRUE)
  if (!is.null(rows) && nrow(out) == length(rows)) rownames(out) <- rows
  out
}

seurat_counts <- function(x) {
  assays <- field(x, "assays")
  if (is.null(assays) || is.null(field(x, "meta.data"))) return(NULL)
  name <- if ("RNA" %in% names(assays)) "RNA" else as.character(field(x, "active.assay"))
  assay <- assays[[name]]
  counts <- field(assay, "counts") # Assay of versions 3 and 4
  cells <- rownames(field(x, "meta.data"))
  if (is.null(counts)) { # Assay5: layers without names, the names in two logical maps
    layers <- field(assay, "layers")
    found <- grep("^counts", names(layers), value = TRUE)
    if (length(found) != 1L) fail("assay ", name, ": expected one layer of counts, found ", paste(names(layers), collapse = ", "))
    counts <- layers[[found]]
    genes <- rownames(field(assay, "features"))
    if (is.null(genes)) genes <- dimnames(attr(field(assay, "features"), ".Data"))[[1]]
    dimnames(counts) <- list(genes, cells)
  }
  list(counts = counts, obs = field(x, "meta.data"), var = data.frame(row.names = rownames(counts)))
}

experiment_counts <- function(x) {
  data <- field(field(x, "assays"), "data")
  listed <- field(data, "listData")
  obs <- plain_frame(field(x, "colData"))
  if (is.null(listed) || is.null(obs)) return(NULL)
  counts <- if (!is.null(listed[["counts"]])) listed[["counts"]] else listed[[1]]
  ranges <- field(x, "rowRanges")
  own <- field(x, "elementMetadata")
  if (is.null(own) || length(field(own, "listData")) == 0) {
    inner <- field(ranges, "unlistData")
    more <- field(if (is.null(inner)) ranges else inner, "elementMetadata")
    if (!is.null(more) && length(field(more, "listData"))) own <- more
  }
  var <- if (is.null(own)) NULL else plain_frame(own)
  genes <- rownames(counts)
  if (is.null(genes)) genes <- field(x, "NAMES")
  if (is.null(genes)) genes <- field(field(ranges, "partitioning"), "NAMES")
  if (is.null(genes) && !is.null(var) && "id" %in% names(var)) genes <- as.character(var[["id"]])
  if (is.null(genes)) fail("the object has no names of genes")
  if (is.null(var) || nrow(var) != nrow(counts)) var <- data.frame(row.names = make.unique(genes))
  rownames(counts) <- genes
  if (is.null(colnames(counts))) colnames(counts) <- rownames(obs)
  list(counts = counts, obs = obs, var = var)
}

write_csv <- function(frame, names, path) {
  out <- gzfile(path, "wb")
  on.exit(close(out))
  frame <- as.data.frame(lapply(frame, function(v) if (is.factor(v)) as.character(v) else v),
                         stringsAsFactors = FALSE, check.names = FALSE, optional = TRUE)
  if (ncol(frame) == 0L) frame <- data.frame(name = names) else frame <- cbind(data.frame(name = names), frame)
  utils::write.csv(frame, out, row.names = FALSE, na = "") # a label "NA" stays one
}

write_matrix <- function(counts, path) {
  counts <- as(as(counts, "CsparseMatrix"), "generalMatrix")
  if (any(counts@x != round(counts@x)) || any(counts@x < 0)) fail("the counts are no whole numbers; is it another layer?")
  out <- gzfile(path, "wb")
  on.exit(close(out))
  writeLines(c("%%MatrixMarket matrix coordinate integer general",
               sprintf("%d %d %.0f", nrow(counts), ncol(counts), length(counts@x))), out)
  for (first in seq(1L, ncol(counts), by = BLOCK)) {
    last <- min(first + BLOCK - 1L, ncol(counts))
    ends <- counts@p[first:(last + 1L)]
    if (ends[length(ends)] == ends[1]) next
    at <- (ends[1] + 1):ends[length(ends)]
    cell <- rep.int(first:last, diff(ends))
    writeLines(sprintf("%d %d %.0f", counts@i[at] + 1L, cell, counts@x[at]), out)
  }
}

convert <- function(x, stem) {
  found <- seurat_counts(x)
  if (is.null(found)) found <- experiment_counts(x)
  if (is.null(found) && is.list(x) && !is.null(names(x)) && length(x)) {
    for (name in names(x)) convert(x[[name]], paste0(stem, ".", name))
    return(invisible())
  }
  if (is.null(found)) fail(stem, ": expected a Seurat object, a cell_data_set or a list of them, found ", class(x)[1])
  if (ncol(found$counts) != nrow(found$obs)) {
    fail(stem, ": expected a line of the cell table for each of ", ncol(found$counts), " cells, found ", nrow(found$obs))
  }
  write_matrix(found$counts, paste0(stem, ".matrix.mtx.gz"))
  write_csv(found$obs, colnames(found$counts), paste0(stem, ".obs.csv.gz"))
  write_csv(found$var, rownames(found$counts), paste0(stem, ".var.csv.gz"))
  message(stem, ": ", nrow(found$counts), " genes x ", ncol(found$counts), " cells")
}

read_object <- function(path) {
  # GEO packs .RDS files, which are packed already, a second time
  twice <- grepl("\\.gz$", path)
  if (!twice) return(readRDS(path))
  inner <- gzcon(gzfile(path, "rb"))
  on.exit(close(inner))
  readRDS(inner)
}

paths <- commandArgs(trailingOnly = TRUE)
if (!length(paths)) fail("usage: Rscript convert_rds.R OBJECT.rds [MORE.rds ...]")
for (path in paths) {
  if (!file.exists(path)) fail(path, ": no such file")
  convert(read_object(path), sub("\\.(rds|RDS)(\\.gz)?$", "", path))
}
